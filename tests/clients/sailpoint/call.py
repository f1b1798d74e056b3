"""Makes calls with SailPoint's own current client, one after another, and prints the parsed answers.

stdin: {"url", "id", "secret", "calls": [{"call", "arguments"}]}; the client logs in by itself. stdout:
[{"status", "parsed"}], where `parsed` is the answer as the client parsed it, or null if it is empty. This client cannot send a patch
whose value is a list.
"""

import json
import sys
from datetime import datetime

from sailpoint.configuration import Configuration, ConfigurationParams
from sailpoint.personal_access_tokens import (
    ApiClient,
    ApiException,
    BulkUpdatePersonalAccessTokensRequest,
    CreatePersonalAccessTokenRequest,
    JsonPatchOperation,
    PersonalAccessTokensApi,
)


def plain(parsed):
    """The parsed answer, as the client serialises it."""
    if isinstance(parsed, list):
        return [plain(one) for one in parsed]
    return parsed.to_dict() if hasattr(parsed, "to_dict") else parsed


def call(api, name, arguments):
    if name == "list":
        return api.list_personal_access_tokens_v1_with_http_info(**arguments)
    if name == "create":
        request = CreatePersonalAccessTokenRequest.from_dict(arguments)
        return api.create_personal_access_token_v1_with_http_info(request)
    if name == "patch":
        operations = [JsonPatchOperation.from_dict(one) for one in arguments["operations"]]
        return api.patch_personal_access_token_v1_with_http_info(arguments["id"], operations)
    if name == "delete":
        return api.delete_personal_access_token_v1_with_http_info(arguments["id"])
    if name == "bulk":
        request = BulkUpdatePersonalAccessTokensRequest.from_dict(arguments)
        return api.update_bulk_personal_access_tokens_v1_with_http_info(request)
    raise ValueError(name)


def answer(api, one):
    try:
        response = call(api, one["call"], one["arguments"])
        return {"status": response.status_code, "parsed": plain(response.data)}
    except ApiException as refused:
        return {"status": refused.status, "parsed": plain(refused.data)}


def text(value):
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(type(value))


def main():
    request = json.load(sys.stdin)
    params = ConfigurationParams()
    params.base_url, params.client_id, params.client_secret = request["url"], request["id"], request["secret"]
    api = PersonalAccessTokensApi(ApiClient(Configuration(params)))
    json.dump([answer(api, one) for one in request["calls"]], sys.stdout, default=text)


main()
