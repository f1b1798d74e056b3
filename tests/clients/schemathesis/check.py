"""Has schemathesis make up requests from an OpenAPI description and compare the answers with it.

Standard input: {"url": of the description, "token", "id": of that token, "email": of a user who is described, "examples": for each operation,
"seconds": at most}; standard output: {"operations", "requests", "answers": {operation: [status, ...]}, "failures": [...]}. The same requests
every time, as far as the answers are the same.
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
    wanted = json.load(sys.stdin)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        hooks = Path(__file__).with_name("hooks.py")
        (folder / "schemathesis.toml").write_text(CONFIG.format(hooks=hooks))
        report = folder / "report.json"
        command = [
            sys.executable, "-m", "schemathesis.cli", "run", wanted["url"],
            "--checks", ",".join(CHECKS),
            "--max-examples", str(wanted["examples"]),
            "--generation-deterministic",
            "--continue-on-failure",
            "--report", "json",
            "--report-json-path", str(report),
            "--no-color",
        ]
        # Nothing on the way: neither a proxy nor a home folder's settings. The token is no argument: those are seen by others.
        environment = {
            "PATH": os.environ.get("PATH", ""),
            "HOME": name,
            "PYTHONDONTWRITEBYTECODE": "1",
            "PAT": wanted["token"],
            "PAT_ID": wanted["id"],
            "PAT_EMAIL": wanted["email"],
            "PAT_SEEN": str(folder / "seen"),
        }
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=wanted["seconds"]
        )
        if not report.exists():
            sys.exit(f"schemathesis ended with {done.returncode}: {done.stdout[-4000:]}{done.stderr[-4000:]}")
        told = json.loads(report.read_text())
        answers = {}
        for line in set((folder / "seen").read_text().splitlines()):
            operation, status = line.rsplit(" ", 1)
            answers.setdefault(operation, []).append(int(status))
    failures = told["failures"] + told["errors"]
    if failures or done.returncode:
        print(done.stdout[-20000:], file=sys.stderr)
    if done.returncode and not failures:
        sys.exit(f"schemathesis ended with {done.returncode}")
    cases = told["test_cases"]["generated"]
    json.dump({"operations": told["operations"], "requests": cases, "answers": answers, "failures": failures}, sys.stdout)


main()
