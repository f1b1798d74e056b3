"""Calls TrueFoundry's own client, one call after the other, and tells what it made of the answers.

Standard input: {"url", "token", "calls": [{"call", "arguments"}]}; standard output: [{"status", "read"}], where `read` is what the
client read out of the answer. `page` reads one page, `all` every page by the client's own pager; the others are methods of the
client, such as `personal_access_tokens.create`.
"""

import json
import sys
from operator import attrgetter

from truefoundry_sdk import TrueFoundry
from truefoundry_sdk.core.api_error import ApiError

# Otherwise it tries again what was refused, and sleeps in between.
ONCE = {"max_retries": 0}


def plain(read):
    """What the client read, as it writes it back."""
    if isinstance(read, list):
        return [plain(one) for one in read]
    return json.loads(read.json()) if hasattr(read, "json") else read


def call(client, name, arguments):
    if name in ("page", "all"):
        pager = client.personal_access_tokens.list(**arguments, request_options=ONCE)
        if name == "all":
            return list(pager)
        # Older pagers do not hold the answer itself.
        return pager.response if hasattr(pager, "response") else pager.items
    return attrgetter(name)(client)(**arguments, request_options=ONCE)


def answer(client, name, arguments):
    try:
        return {"status": 200, "read": plain(call(client, name, arguments))}
    except ApiError as error:
        return {"status": error.status_code, "read": plain(error.body), "error": type(error).__name__}


def main():
    wanted = json.load(sys.stdin)
    client = TrueFoundry(base_url=wanted["url"], api_key=wanted["token"])
    json.dump([answer(client, one["call"], one["arguments"]) for one in wanted["calls"]], sys.stdout)


main()
