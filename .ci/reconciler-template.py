import re
p='/work/main/infra/template.yaml'; s=open(p).read()
def rep(a,b,n=1):
    global s
    if s.count(a)!=n: raise SystemExit(f'COUNT {s.count(a)}: {a[:80]}')
    s=s.replace(a,b)
rep('''      - Label: { default: How the functions run }
        Parameters: [Architecture, ReservedConcurrency, LogLevel]
''','''      - Label: { default: How the functions run }
        Parameters: [Architecture, ReservedConcurrency, LogLevel, ReconcileHours]
''')
rep('''      AlarmEmail: { default: E-mail address for alarms }
''','''      ReconcileHours: { default: Hours to look back for missing calls }
      AlarmEmail: { default: E-mail address for alarms }
''')
rep('''  AlarmEmail:
    Type: String
''','''  ReconcileHours:
    Type: Number
    Default: 24
    MinValue: 1
    MaxValue: 720
    Description: >-
      How many hours back the reconciler looks for Vocobase calls whose webhook never came. It is off until
      VocobaseApiKeySecret has a value.
  AlarmEmail:
    Type: String
''')
rep('''  # Stream records of recording jobs that could not be worked on.
''','''  # What the reconciler asks Vocobase's API with. Holds no value until `hookswitch secret set vocobase-api-key` gives it
  # one; until then the reconciler is off.
  VocobaseApiKeySecret:
    Type: AWS::SecretsManager::Secret
    DeletionPolicy: RetainExceptOnCreate
    UpdateReplacePolicy: Retain
    Properties:
      Description: A key of Vocobase's API (rg_live_…).

  # Stream records of recording jobs that could not be worked on.
''')
rep('''  # Everything that somebody should know of.''','''  # Stores calls whose webhook never came, and has the URLs of lost recordings made anew.
  ReconcilerFunction:
    Type: AWS::Serverless::Function
    Metadata: { SkipBuild: true }
    Properties:
      FunctionName: !Sub ${AWS::StackName}-reconciler
      CodeUri: ../target/lambda/reconciler/
      Role: !GetAtt ReconcilerRole.Arn
      LoggingConfig: { LogGroup: !Ref ReconcilerLogGroup }
      MemorySize: 512 # the same sessions as session_completed
      Timeout: 600
      Environment:
        Variables:
          VOCOBASE_API_KEY_SECRET_ARN: !GetAtt VocobaseApiKeySecret.Id
          RECONCILE_HOURS: !Ref ReconcileHours
      Events:
        Schedule:
          Type: ScheduleV2
          Properties:
            Name: !Sub ${AWS::StackName}-reconcile
            ScheduleExpression: rate(15 minutes)

  ReconcilerRole:
    Type: AWS::IAM::Role
    Properties:
      AssumeRolePolicyDocument:
        Version: "2012-10-17"
        Statement: [{ Effect: Allow, Principal: { Service: lambda.amazonaws.com }, Action: sts:AssumeRole }]
      Policies:
        - PolicyName: function
          PolicyDocument:
            Version: "2012-10-17"
            Statement:
              - { Sid: KeepEvent, Effect: Allow, Action: dynamodb:PutItem, Resource: !GetAtt EventsTable.Arn }
              - { Sid: KeepLargeBody, Effect: Allow, Action: s3:PutObject, Resource: !Sub "${RecordingsBucket.Arn}/bodies/*" }
              - { Sid: KeepTranscript, Effect: Allow, Action: dynamodb:PutItem, Resource: !GetAtt TranscriptsTable.Arn }
              - { Sid: FindAndMergeCalls, Effect: Allow, Action: [dynamodb:BatchGetItem, dynamodb:GetItem, dynamodb:UpdateItem], Resource: !GetAtt SessionsTable.Arn }
              - { Sid: WantRecording, Effect: Allow, Action: [dynamodb:GetItem, dynamodb:UpdateItem], Resource: !GetAtt RecordingsTable.Arn }
              - { Sid: FindLost, Effect: Allow, Action: dynamodb:Query, Resource: !Sub "${RecordingsTable.Arn}/index/unfinished" }
              - { Sid: ReadSecret, Effect: Allow, Action: secretsmanager:GetSecretValue, Resource: !GetAtt VocobaseApiKeySecret.Id }
              - { Sid: WriteLogs, Effect: Allow, Action: [logs:CreateLogStream, logs:PutLogEvents], Resource: !GetAtt ReconcilerLogGroup.Arn }
              - { Sid: Trace, Effect: Allow, Action: [xray:PutTraceSegments, xray:PutTelemetryRecords], Resource: "*" }

  ReconcilerLogGroup:
    Type: AWS::Logs::LogGroup
    UpdateReplacePolicy: Delete
    DeletionPolicy: Delete
    Properties:
      LogGroupName: !Sub /aws/lambda/${AWS::StackName}-reconciler
      RetentionInDays: !Ref LogRetentionDays

  # Everything that somebody should know of.''')
for letter,metric in (('e','Errors'),('t','Throttles')):
    rep(f'''            Metric: {{ Namespace: AWS/Lambda, MetricName: {metric}, Dimensions: [{{ Name: FunctionName, Value: !Ref RecordingArchiverFunction }}] }}
            Period: 300
            Stat: Sum
''',f'''            Metric: {{ Namespace: AWS/Lambda, MetricName: {metric}, Dimensions: [{{ Name: FunctionName, Value: !Ref RecordingArchiverFunction }}] }}
            Period: 300
            Stat: Sum
        - Id: {letter}8
          ReturnData: false
          MetricStat:
            Metric: {{ Namespace: AWS/Lambda, MetricName: {metric}, Dimensions: [{{ Name: FunctionName, Value: !Ref ReconcilerFunction }}] }}
            Period: 300
            Stat: Sum
''')
rep('''  FailureQueueAlarm:
''','''  ReconcilerAlarm:
    Type: AWS::CloudWatch::Alarm
    Properties:
      AlarmDescription: The reconciler failed twice in a row.
      AlarmActions: [!Ref AlarmTopic]
      OKActions: [!Ref AlarmTopic]
      TreatMissingData: notBreaching
      Namespace: Hookswitch
      MetricName: ReconcilerRuns
      Dimensions: [{ Name: stack, Value: !Ref AWS::StackName }, { Name: outcome, Value: failed }]
      Statistic: Sum
      Period: 900
      EvaluationPeriods: 2
      ComparisonOperator: GreaterThanThreshold
      Threshold: 0

  FailureQueueAlarm:
''')
rep('''              "${FailureQueueAlarm.Arn}",
''','''              "${ReconcilerAlarm.Arn}",
              "${FailureQueueAlarm.Arn}",
''')
rep('''  RecordingArchiverFunction:
    Description: The function that fetches recordings.
''','''  VocobaseApiKeySecret:
    Description: The ARN of the secret that the reconciler asks Vocobase's API with.
    Value: !GetAtt VocobaseApiKeySecret.Id
  ReconcilerFunction:
    Description: The function that finds calls whose webhook never came.
    Value: !Ref ReconcilerFunction
  RecordingArchiverFunction:
    Description: The function that fetches recordings.
''')
open(p,'w').write(s)
