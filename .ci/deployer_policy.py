"""Fails unless docs/deployer-policy.json allows what CloudFormation does with the templates' types of resources.

Which actions those are is in AWS's own schemas of the types, which cfn-lint brings along. They name the actions for
everything that a type can do; what no template uses is listed here. Usage: deployer_policy.py POLICY EXPANDED...
"""

import json
import sys
from fnmatch import fnmatchcase
from pathlib import Path

import cfnlint

UNUSED = {
    "AWS::Lambda::Function": "ec2:* elasticfilesystem:* s3files:* kms:* *CodeSigningConfig *CapacityProvider "
    "*RuntimeAlias *RuntimeManagementConfig *RecursionConfig *ScalingConfig lambda:PublishVersion",
    "AWS::Lambda::EventSourceMapping": "kms:*",
    "AWS::DynamoDB::Table": "*Item dynamodb:Query dynamodb:Scan *Replica *Import* *Kinesis* kinesis:* kms:* s3:* "
    "logs:* *ContributorInsights *ResourcePolicy iam:*",
    "AWS::S3::Bucket": "*Metadata*Table* s3tables:* *Object* *Accelerate* *Analytics* *Abac *Acl *Cors *CORS *Logging "
    "*Notification *Replication* *Website *IntelligentTiering* *Inventory* *Metrics* iam:* "
    "s3:DeleteBucketEncryption s3:DeleteBucketLifecycle",
    "AWS::Logs::LogGroup": "*KmsKey *DataProtectionPolicy *IndexPolicy *ResourcePolicy *BearerToken* *LogDelivery "
    "*DeletionProtection firehose:* s3:*",
    "AWS::IAM::Role": "*PermissionsBoundary iam:AttachRolePolicy iam:DetachRolePolicy",
    "AWS::SecretsManager::Secret": "*Replica*",
    "AWS::SNS::Topic": "sns:PutDataProtectionPolicy iam:*",
    "AWS::SNS::Subscription": "sns:SetSubscriptionAttributes iam:*",
    "AWS::Events::EventBus": "kms:* events:*Permission",
    "AWS::Events::Connection": "kms:*",
    "AWS::StepFunctions::StateMachine": "kms:* s3:*",
    "AWS::Athena::WorkGroup": "kms:* s3:*Object s3:*Multipart* iam:CreateServiceLinkedRole",
    "AWS::Glue::Database": "lakeformation:* glue:*Connection",
    "AWS::Glue::Table": "lakeformation:* glue:GetSchemaVersion glue:PassConnection s3:*Object",
}
LONGEST = 6144  # characters without white space that IAM takes as a managed policy


def read(path):
    return json.loads(Path(path).read_text(encoding="utf-8"))


def any_of(patterns, action):
    return any(fnmatchcase(action, pattern) for pattern in patterns)


policy, *templates = map(read, sys.argv[1:])
assert len(json.dumps(policy, separators=(",", ":"))) <= LONGEST, "the policy is longer than IAM takes"
types = {resource["Type"] for template in templates for resource in template["Resources"].values()}
allowed = [action for statement in policy["Statement"] for action in statement["Action"]]
known, missing = set(), set()
for file in Path(cfnlint.__file__).parent.glob("data/schemas/resources/*.json"):
    schema = read(file)
    name = schema.get("typeName")
    if name not in types:
        continue
    known.add(name)
    patterns = allowed + UNUSED.get(name, "").split()
    for does, handler in schema["handlers"].items():
        if does != "list":  # no deployment lists
            missing |= {action for action in handler.get("permissions", []) if not any_of(patterns, action)}
assert known == types, f"nothing is known of {types - known}"
assert not missing, f"docs/deployer-policy.json does not allow {sorted(missing)}"
print(f"docs/deployer-policy.json allows what {len(types)} types of resources take")
