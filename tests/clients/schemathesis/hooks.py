"""What schemathesis cannot know: it may change and delete every token but its own, and which credentials are good."""

import os

import schemathesis

OWN = os.environ["PAT_ID"]
TOKEN = os.environ["PAT"]


@schemathesis.hook
def before_call(context, case, kwargs):
    parameters = case.path_parameters or {}
    if parameters.get("id") == OWN:
        parameters["id"] = OWN[::-1]
    # Every second log-in that could be right is.
    body = case.body
    if case.path.endswith("/oauth/token") and isinstance(body, dict) and len(str(body)) % 2:
        body.update(grant_type="client_credentials", client_id=OWN, client_secret=TOKEN)
        body.pop("scope", None)
