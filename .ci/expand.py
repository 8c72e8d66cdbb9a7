"""Expands a SAM template as a deployment does, to what CloudFormation will be given.

cfn-lint looks at what is expanded more closely than at the short form: a wrong AuthType is only seen here.
Usage: expand.py TEMPLATE > EXPANDED
"""

import json
import os
import sys

from samtranslator.translator.transform import transform
from samtranslator.yaml_helper import yaml_parse

os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")


class NoManagedPolicies:
    """No policy of the template is named by an AWS managed policy's name."""

    def load(self):
        return {}


with open(sys.argv[1], encoding="utf-8") as file:
    template = yaml_parse(file.read())
for resource in template["Resources"].values():
    if resource["Type"] == "AWS::Serverless::Function":
        # A deployment uploads the folder and puts such an address in its place.
        resource["Properties"]["CodeUri"] = "s3://bucket/key"
json.dump(transform(template, {}, NoManagedPolicies()), sys.stdout, indent=1)
