"""Signs requests as Huawei's own SDK does: a JSON object a line in, one out.

In: method, host, path (as sent), query (decoded pairs), headers, body (base64),
ak, sk. Out: authorization, and the request target that the SDK would send.
"""
import base64
import json
import sys

from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.sdk_request import SdkRequest
from huaweicloudsdkcore.signer.signer import Signer

for line in sys.stdin:
    case = json.loads(line)
    request = SdkRequest(
        method=case["method"], schema="https", host=case["host"], resource_path=case["path"],
        query_params=[tuple(pair) for pair in case["query"]], header_params=case["headers"],
        body=base64.b64decode(case["body"]))
    signed = Signer(BasicCredentials(case["ak"], case["sk"])).sign(request)
    answer = {"authorization": signed.header_params["Authorization"], "target": signed.uri}
    print(json.dumps(answer), flush=True)
