"""What schemathesis cannot know: it may change and delete every token but its own, which credentials are good, and which tokens there are.

What is made up at random is nearly always refused: of each three requests one stays as it is, and the others are of the kind that succeeds.
"""

import json
import os

import schemathesis

OWN = os.environ["PAT_ID"]
TOKEN = os.environ["PAT"]
EMAIL = os.environ["PAT_EMAIL"]
SEEN = os.environ["PAT_SEEN"]

# Few, for each operation: each is there before long.
NAMES = ["a", "b", "c"]

# Tokens that are listed, or were.
LISTED = []

COUNTS = {}


def operation(case):
    return case.operation.definition.raw.get("operationId", "")


@schemathesis.hook
def before_call(context, case, kwargs):
    turn = COUNTS[operation(case)] = COUNTS.get(operation(case), -1) + 1
    parameters, body = case.path_parameters or {}, case.body
    if "id" in parameters and turn % 3 and LISTED:
        parameters["id"] = LISTED[turn % len(LISTED)]
    if parameters.get("id") == OWN:
        parameters["id"] = OWN[::-1]
    # Every second log-in that could be right is.
    if case.path.endswith("/oauth/token") and isinstance(body, dict) and len(str(body)) % 2:
        body.update(grant_type="client_credentials", client_id=OWN, client_secret=TOKEN)
        body.pop("scope", None)
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
