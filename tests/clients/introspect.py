"""Introspects tokens with Authlib, a third-party library.

stdin: {url, client_id, client_secret, tokens}; stdout: a list of {status, body} in the order of the
tokens.
"""

import json
import sys

from authlib.integrations.requests_client import OAuth2Session


def main():
    given = json.load(sys.stdin)
    session = OAuth2Session(
        given["client_id"],
        given["client_secret"],
        token_endpoint_auth_method="client_secret_basic",
    )
    answers = []
    for token in given["tokens"]:
        response = session.introspect_token(given["url"], token=token, token_type_hint="access_token")
        answers.append({"status": response.status_code, "body": response.json()})
    json.dump(answers, sys.stdout)


main()
