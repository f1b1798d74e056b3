"""Tells schemathesis what it cannot know: valid credentials, existing tokens, and which token it must not change: its own.

The server refuses almost all random requests. So one of three requests stays random, and the others are changed so that they can succeed.
"""

import base64
import json
import os

import schemathesis

OWN = os.environ["PAT_ID"]
TOKEN = os.environ["PAT"]
EMAIL = os.environ["PAT_EMAIL"]
SEEN = os.environ["PAT_SEEN"]

# A few names for each operation, so that a name soon exists already.
NAMES = ["a", "b", "c"]

# The ids of tokens that were in a list.
LISTED = []

COUNTS = {}


def operation(case):
    return case.operation.definition.raw.get("operationId", "")


@schemathesis.auth()
class Caller:
    """Sends the token as bearer, except where that would be a second way to log in."""

    def get(self, case, context):
        return TOKEN

    def set(self, case, data, context):
        if not case.path.endswith("/oauth/token"):
            case.headers = {**(case.headers or {}), "Authorization": f"Bearer {data}"}


def log_in(case, body, secret, basic):
    """Puts well-formed credentials in the header or in the body."""
    for name in ["client_id", "client_secret", "scope"]:
        body.pop(name, None)
    body["grant_type"] = "client_credentials"
    case.headers = {name: value for name, value in (case.headers or {}).items() if name.lower() != "authorization"}
    if basic:
        case.headers["Authorization"] = "Basic " + base64.b64encode(f"{OWN}:{secret}".encode()).decode()
    else:
        body.update(client_id=OWN, client_secret=secret)


@schemathesis.hook
def before_call(context, case, kwargs):
    turn = COUNTS[operation(case)] = COUNTS.get(operation(case), -1) + 1
    parameters, body = case.path_parameters or {}, case.body
    if "id" in parameters and turn % 3 and LISTED:
        parameters["id"] = LISTED[turn % len(LISTED)]
    if parameters.get("id") == OWN:
        parameters["id"] = OWN[::-1]
    if case.path.endswith("/oauth/token") and isinstance(body, dict) and turn % 3:
        log_in(case, body, TOKEN if turn % 3 == 1 else TOKEN[::-1], turn % 2)
    if operation(case) == "truefoundryRevokeTokens" and isinstance(body, dict) and turn % 3:
        body["email"] = EMAIL
    if "Create" in operation(case) and isinstance(body, dict) and turn % 3:
        body.clear()
        body["name"] = f"{operation(case).lower()}-{NAMES[turn % len(NAMES)]}"
        if operation(case) == "truefoundryCreateTokenForUser":
            body["userEmail"] = EMAIL
        if operation(case) == "sailpointV1Create":
            body["userAwareTokenNeverExpires"] = True


@schemathesis.hook
def after_call(context, case, response):
    with open(SEEN, "a") as seen:
        print(operation(case), response.status_code, file=seen)
    if "List" not in operation(case) or response.status_code != 200:
        return
    try:
        answer = json.loads(response.content)
    except ValueError:
        return
    items = answer["data"] if isinstance(answer, dict) else answer
    LISTED.extend(item["id"] for item in items if item["id"] not in [OWN, *LISTED])
