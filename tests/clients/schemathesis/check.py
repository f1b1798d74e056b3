"""Lets schemathesis generate requests from an OpenAPI description, and compare the answers with it.

stdin: {"url": of the description, "token", "id": of the token, "email": of a user with a TokenOwner, "examples": for each operation,
"seconds": at most}; stdout: {"operations", "requests", "answers": {operation: [status, ...]}, "failures": [...]}. The requests are
the same in each run, as long as the answers are.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "allow_header_conformance",
    "use_after_free",
    "ignored_auth",
]

CONFIG = """
hooks = "{hooks}"
"""


def main():
    request = json.load(sys.stdin)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        hooks = Path(__file__).with_name("hooks.py")
        (folder / "schemathesis.toml").write_text(CONFIG.format(hooks=hooks))
        report = folder / "report.json"
        command = [
            sys.executable, "-m", "schemathesis.cli", "run", request["url"],
            "--checks", ",".join(CHECKS),
            "--max-examples", str(request["examples"]),
            "--generation-deterministic",
            "--continue-on-failure",
            "--report", "json",
            "--report-json-path", str(report),
            "--no-color",
        ]
        # The proxies and settings of the user have no effect. The token is not an argument, because other users can see arguments.
        environment = {
            "PATH": os.environ.get("PATH", ""),
            "HOME": name,
            "PYTHONDONTWRITEBYTECODE": "1",
            "PAT": request["token"],
            "PAT_ID": request["id"],
            "PAT_EMAIL": request["email"],
            "PAT_SEEN": str(folder / "seen"),
        }
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=request["seconds"]
        )
        if not report.exists():
            sys.exit(f"schemathesis exited with code {done.returncode}: {done.stdout[-4000:]}{done.stderr[-4000:]}")
        results = json.loads(report.read_text())
        answers = {}
        for line in set((folder / "seen").read_text().splitlines()):
            operation, status = line.rsplit(" ", 1)
            answers.setdefault(operation, []).append(int(status))
    failures = results["failures"] + results["errors"]
    if failures or done.returncode:
        print(done.stdout[-20000:], file=sys.stderr)
    if done.returncode and not failures:
        sys.exit(f"schemathesis exited with code {done.returncode}")
    cases = results["test_cases"]["generated"]
    json.dump({"operations": results["operations"], "requests": cases, "answers": answers, "failures": failures}, sys.stdout)


main()
