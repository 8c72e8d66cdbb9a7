"""Fails unless everybody, and through its function URL only, may call each function that has one.

Since October 2025 that takes two permissions; with one alone AWS answers every delivery 403. A permission without
InvokedViaFunctionUrl would let every AWS account call the function past its URL. Source: AWS Lambda Developer Guide,
"Control access to Lambda function URLs". Usage: function_urls.py EXPANDED
"""

import json
import sys

PERMISSIONS = [
    {"Action": "lambda:InvokeFunction", "InvokedViaFunctionUrl": True, "Principal": "*"},
    {"Action": "lambda:InvokeFunctionUrl", "FunctionUrlAuthType": "NONE", "Principal": "*"},
]

with open(sys.argv[1], encoding="utf-8") as file:
    resources = json.load(file)["Resources"].values()


def of_type(kind):
    return [resource["Properties"] for resource in resources if resource["Type"] == kind]


given = {}
for permission in of_type("AWS::Lambda::Permission"):
    given.setdefault(permission.pop("FunctionName")["Ref"], []).append(permission)
wanted = {url["TargetFunctionArn"]["Ref"]: PERMISSIONS for url in of_type("AWS::Lambda::Url")}
for permissions in given.values():
    permissions.sort(key=lambda permission: permission["Action"])
assert wanted and given == wanted, f"the permissions to call functions are {json.dumps(given, indent=1)}"
print(f"{len(wanted)} function URLs, each with both permissions")
