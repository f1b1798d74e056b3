"""Makes calls with Cryptlex's own client, one after another, and prints the parsed answers.

stdin: {"url", "token", "calls": [{"call", "arguments"}]}; stdout: [{"status", "parsed"}], where `parsed` is the answer as the client
parsed it, or null if it could not.
"""

import json
import sys

from cryptlex_web_api_client import AuthenticatedClient
from cryptlex_web_api_client.api.personal_access_tokens import (
    deletev3personal_access_tokensid as delete,
    getv3personal_access_tokens as listed,
    getv3personal_access_tokensid as shown,
    patchv3personal_access_tokensid as patch,
    postv3personal_access_tokens as create,
)
from cryptlex_web_api_client.models import (
    PersonalAccessTokenRevokeRequestModel,
    Postv3PersonalAccessTokensJsonBody,
    UserDto,
)


def plain(parsed):
    """The parsed answer, as the client serialises it."""
    if isinstance(parsed, list):
        return [plain(one) for one in parsed]
    return parsed.to_dict() if hasattr(parsed, "to_dict") else parsed


class Users:
    """The users of listed tokens. The client ignores them in a token, and parses users elsewhere."""

    def __init__(self, answer):
        self.status_code = answer.status_code
        self.parsed = [UserDto.from_dict(token["user"]) for token in json.loads(answer.content)]


def call(client, name, arguments):
    if name == "users":
        return Users(listed.sync_detailed(client=client, **arguments))
    if name == "list":
        return listed.sync_detailed(client=client, **arguments)
    if name == "create":
        body = Postv3PersonalAccessTokensJsonBody.from_dict(arguments)
        return create.sync_detailed(client=client, json_body=body)
    if name == "get":
        return shown.sync_detailed(arguments["id"], client=client)
    if name == "revoke":
        body = PersonalAccessTokenRevokeRequestModel(revoked=arguments["revoked"])
        return patch.sync_detailed(arguments["id"], client=client, json_body=body)
    if name == "delete":
        return delete.sync_detailed(arguments["id"], client=client)
    raise ValueError(name)


def main():
    request = json.load(sys.stdin)
    client = AuthenticatedClient(base_url=request["url"], token=request["token"], timeout=30.0)
    answers = [call(client, one["call"], one["arguments"]) for one in request["calls"]]
    results = [{"status": int(answer.status_code), "parsed": plain(answer.parsed)} for answer in answers]
    json.dump(results, sys.stdout)


main()
