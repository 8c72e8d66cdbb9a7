// What `session_completed` does, as one would write it for Node with AWS's own libraries: verify, store the delivery once,
// merge what it says into the call, answer.
import { createHash, createHmac, timingSafeEqual } from "node:crypto";
import { IdempotencyConfig, makeIdempotent } from "@aws-lambda-powertools/idempotency";
import { DynamoDBPersistenceLayer } from "@aws-lambda-powertools/idempotency/dynamodb";
import { Logger } from "@aws-lambda-powertools/logger";
import { DynamoDBClient } from "@aws-sdk/client-dynamodb";
import { DynamoDBDocumentClient, PutCommand, UpdateCommand } from "@aws-sdk/lib-dynamodb";

const TOLERANCE_MS = 300_000;

const logger = new Logger();
const client = new DynamoDBClient({});
const tables = DynamoDBDocumentClient.from(client, { marshallOptions: { removeUndefinedValues: true } });
const persistenceStore = new DynamoDBPersistenceLayer({
  tableName: process.env.IDEMPOTENCY_TABLE,
  awsSdkV3Client: client,
});
const config = new IdempotencyConfig({});

const store = makeIdempotent(
  async ({ body }) => {
    const { event, timestamp, data } = JSON.parse(body);
    const session = `vocobase#${data.session_id}`;
    const sha256 = createHash("sha256").update(body).digest("hex");
    await tables.send(
      new PutCommand({
        TableName: process.env.EVENTS_TABLE,
        Item: { session, event: `${event}#${timestamp}#${sha256}`, received_at: new Date().toISOString(), body },
      }),
    );
    const call = {
      agent_id: data.agent_id,
      agent_name: data.agent_name,
      duration_seconds: data.duration_seconds,
      credits_used: data.credits_used,
      transcript: data.transcript,
      recording_url: data.recording_url,
      latency: data.latency,
      call: data.call,
      state: "ended",
    };
    const said = Object.entries(call).filter(([, value]) => value !== undefined);
    await tables.send(
      new UpdateCommand({
        TableName: process.env.SESSIONS_TABLE,
        Key: { session },
        UpdateExpression: `SET ${said.map((_, at) => `#n${at} = :v${at}`).join(", ")}`,
        ExpressionAttributeNames: Object.fromEntries(said.map(([name], at) => [`#n${at}`, name])),
        ExpressionAttributeValues: Object.fromEntries(said.map(([, value], at) => [`:v${at}`, value])),
      }),
    );
    return { http_code: 200, response: { data: {} } };
  },
  { persistenceStore, config },
);

function genuine(headers, body) {
  const timestamp = headers["x-webhook-timestamp"] ?? "";
  const signature = Buffer.from(headers["x-webhook-signature"] ?? "");
  const sent = Date.parse(timestamp);
  if (!(Math.abs(Date.now() - sent) <= TOLERANCE_MS)) return false;
  const mac = createHmac("sha256", process.env.WEBHOOK_SECRET).update(`${timestamp}.${body}`).digest("hex");
  const expected = Buffer.from(`sha256=${mac}`);
  return signature.length === expected.length && timingSafeEqual(signature, expected);
}

const answer = (statusCode, body) => ({
  statusCode,
  headers: { "content-type": "application/json" },
  body: JSON.stringify(body),
});

export const handler = async (event, context) => {
  config.registerLambdaContext(context);
  const body = event.isBase64Encoded ? Buffer.from(event.body, "base64").toString() : event.body;
  if (!genuine(event.headers, body)) {
    logger.warn("refused");
    return answer(401, { error: "unauthorized" });
  }
  const said = await store({ body });
  logger.info("delivery", { outcome: "stored" });
  return answer(200, said);
};
