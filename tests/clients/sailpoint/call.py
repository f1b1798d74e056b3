"""Calls SailPoint's own client of today, one call after the other, and tells what it made of the answers.

Standard input: {"url", "id", "secret", "calls": [{"call", "arguments"}]}: the client logs in by itself. Standard output:
[{"status", "parsed"}], where `parsed` is what the client read out of the answer, or null if there was nothing to read. A patch whose
value is a list cannot be sent by this client.
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
    """What the client read, as it writes it back."""
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
    wanted = json.load(sys.stdin)
    params = ConfigurationParams()
    params.base_url, params.client_id, params.client_secret = wanted["url"], wanted["id"], wanted["secret"]
    api = PersonalAccessTokensApi(ApiClient(Configuration(params)))
    json.dump([answer(api, one) for one in wanted["calls"]], sys.stdout, default=text)


main()
