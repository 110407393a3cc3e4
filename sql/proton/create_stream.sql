-- Creates the stream of calls, as `llm-calls proton init` does: the specified eight columns first, then ours.
--
-- The event's time is the end of a call: were it the beginning, each call longer than its neighbours would come after
-- live windows had closed, and be missing from them.
-- Rows are kept 30 days (TTL, of the historical store that table(llm_calls) reads), and one day in the log that
-- streaming queries replay. To keep them longer:
--   ALTER STREAM llm_calls MODIFY TTL to_datetime(_tp_time) + INTERVAL 90 DAY
-- All columns are there from the start, since on Proton 1.6 rows that come after an ALTER STREAM … ADD COLUMN are not
-- in table(llm_calls) until the server is restarted.

CREATE STREAM IF NOT EXISTS `llm_calls`
(
  `request_method` string,
  `request_url` string,
  `request_headers` map(string, string),
  `request_content` string,
  `request_time` datetime64,
  `response_time` datetime64,
  `response_status_code` int,
  `response_text` string,
  `call_id` string DEFAULT '',
  `operation` low_cardinality(string) DEFAULT '',
  `server_address` low_cardinality(string) DEFAULT '',
  `request_model` low_cardinality(string) DEFAULT '',
  `response_model` low_cardinality(string) DEFAULT '',
  `response_id` string DEFAULT '',
  `request_id` string DEFAULT '',
  `stream` bool DEFAULT false,
  `first_byte_time` nullable(datetime64(3, 'UTC')),
  `first_token_time` nullable(datetime64(3, 'UTC')),
  `input_tokens` nullable(int64),
  `cached_input_tokens` nullable(int64),
  `output_tokens` nullable(int64),
  `reasoning_tokens` nullable(int64),
  `finish_reason` low_cardinality(string) DEFAULT '',
  `service_tier` low_cardinality(string) DEFAULT '',
  `retry_count` nullable(int64),
  `server_processing_ms` nullable(int64),
  `outcome` low_cardinality(string) DEFAULT '',
  `error` string DEFAULT '',
  `response_headers` map(string, string),
  `response_json` string DEFAULT '',
  `request_bytes` int64 DEFAULT 0,
  `response_bytes` int64 DEFAULT 0,
  `truncated` bool DEFAULT false,
  `request_sha256` string DEFAULT '',
  `response_sha256` string DEFAULT '',
  `api_key_hash` low_cardinality(string) DEFAULT '',
  `user_agent` low_cardinality(string) DEFAULT '',
  `tags` map(string, string),
  `latency_ms` int64 ALIAS date_diff('ms', request_time, response_time)
)
TTL to_datetime(_tp_time) + INTERVAL 30 DAY
SETTINGS event_time_column = 'response_time', logstore_retention_ms = 86400000
