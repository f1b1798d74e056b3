"""Calls SailPoint's own client for the older versions of the API, one call after the other, and tells what it made of the answers.

Standard input: {"url", "id", "secret", "version", "calls": [{"call", "arguments"}]}, where `version` is beta, v3, v2024 or v2025: the
client logs in by itself. Standard output: [{"status", "parsed"}], where `parsed` is what the client read out of the answer, or null if
there was nothing to read.
"""

import importlib
import json
import sys
from datetime import datetime

from sailpoint.configuration import Configuration, ConfigurationParams


def plain(parsed):
    """What the client read, as it writes it back."""
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
    wanted = json.load(sys.stdin)
    params = ConfigurationParams()
    params.base_url, params.client_id, params.client_secret = wanted["url"], wanted["id"], wanted["secret"]
    sailpoint = importlib.import_module(f"sailpoint.{wanted['version']}")
    exceptions = importlib.import_module(f"sailpoint.{wanted['version']}.exceptions")
    api = sailpoint.PersonalAccessTokensApi(sailpoint.ApiClient(Configuration(params)))
    answers = [answer(sailpoint, exceptions, api, one) for one in wanted["calls"]]
    json.dump(answers, sys.stdout, default=text)


main()
