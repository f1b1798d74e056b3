"""Makes calls with SailPoint's own client for older API versions, one after another, and prints the parsed answers.

stdin: {"url", "id", "secret", "version", "calls": [{"call", "arguments"}]}, where `version` is beta, v3, v2024 or v2025. The client
logs in by itself. stdout: [{"status", "parsed"}], where `parsed` is the answer as the client parsed it, or null if it is
empty.
"""

import importlib
import json
import sys
from datetime import datetime

from sailpoint.configuration import Configuration, ConfigurationParams


def plain(parsed):
    """The parsed answer, as the client serialises it."""
    if isinstance(parsed, list):
        return [plain(one) for one in parsed]
    return parsed.to_dict() if hasattr(parsed, "to_dict") else parsed


def call(sailpoint, api, name, arguments):
    if name == "list":
        return api.list_personal_access_tokens_with_http_info(**arguments)
    if name == "create":
        request = sailpoint.CreatePersonalAccessTokenRequest.from_dict(arguments)
        return api.create_personal_access_token_with_http_info(request)
    if name == "patch":
        operations = [sailpoint.JsonPatchOperation.from_dict(one) for one in arguments["operations"]]
        return api.patch_personal_access_token_with_http_info(arguments["id"], operations)
    if name == "delete":
        return api.delete_personal_access_token_with_http_info(arguments["id"])
    raise ValueError(name)


def answer(sailpoint, exceptions, api, one):
    try:
        response = call(sailpoint, api, one["call"], one["arguments"])
        return {"status": response.status_code, "parsed": plain(response.data)}
    except exceptions.ApiException as refused:
        return {"status": refused.status, "parsed": plain(refused.data)}


def text(value):
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(type(value))


def main():
    request = json.load(sys.stdin)
    params = ConfigurationParams()
    params.base_url, params.client_id, params.client_secret = request["url"], request["id"], request["secret"]
    sailpoint = importlib.import_module(f"sailpoint.{request['version']}")
    exceptions = importlib.import_module(f"sailpoint.{request['version']}.exceptions")
    api = sailpoint.PersonalAccessTokensApi(sailpoint.ApiClient(Configuration(params)))
    answers = [answer(sailpoint, exceptions, api, one) for one in request["calls"]]
    json.dump(answers, sys.stdout, default=text)


main()
