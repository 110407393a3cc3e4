-- Sends each call that comes from now on to the Kafka topic of kafka_stream.sql (untested here).
CREATE MATERIALIZED VIEW IF NOT EXISTS llm_calls_to_kafka INTO llm_calls_kafka AS
SELECT
  call_id,
  to_string(request_time) AS request_time,
  to_string(response_time) AS response_time,
  request_model,
  outcome,
  response_status_code,
  input_tokens,
  output_tokens,
  request_content,
  response_json
FROM llm_calls
