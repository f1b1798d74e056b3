"""Makes calls with TrueFoundry's own client, one after another, and prints the parsed answers.

stdin: {"url", "token", "calls": [{"call", "arguments"}]}; stdout: [{"status", "read"}], where `read` is the answer as the client
parsed it. `page` reads one page, and `all` reads all pages with the client's pager. Other calls are methods of the
client, such as `personal_access_tokens.create`.
"""

import json
import sys
from operator import attrgetter

from truefoundry_sdk import TrueFoundry
from truefoundry_sdk.core.api_error import ApiError

# By default the client retries a refused request, and sleeps in between.
ONCE = {"max_retries": 0}


def plain(read):
    """The parsed answer, as the client serialises it."""
    if isinstance(read, list):
        return [plain(one) for one in read]
    return json.loads(read.json()) if hasattr(read, "json") else read


def call(client, name, arguments):
    if name in ("page", "all"):
        pager = client.personal_access_tokens.list(**arguments, request_options=ONCE)
        if name == "all":
            return list(pager)
        # Older pagers do not have the answer itself.
        return pager.response if hasattr(pager, "response") else pager.items
    return attrgetter(name)(client)(**arguments, request_options=ONCE)


def answer(client, name, arguments):
    try:
        return {"status": 200, "read": plain(call(client, name, arguments))}
    except ApiError as error:
        return {"status": error.status_code, "read": plain(error.body), "error": type(error).__name__}


def main():
    request = json.load(sys.stdin)
    client = TrueFoundry(base_url=request["url"], api_key=request["token"])
    json.dump([answer(client, one["call"], one["arguments"]) for one in request["calls"]], sys.stdout)


main()
