-- Makes a Kafka topic readable and writable as a stream of rows in JSON; set brokers and topic (untested here).
CREATE EXTERNAL STREAM IF NOT EXISTS llm_calls_kafka
(
  `call_id` string,
  `request_time` string,
  `response_time` string,
  `request_model` string,
  `outcome` string,
  `response_status_code` int32,
  `input_tokens` nullable(int64),
  `output_tokens` nullable(int64),
  `request_content` string,
  `response_json` string
)
SETTINGS type = 'kafka', brokers = 'kafka:9092', topic = 'llm_calls', data_format = 'JSONEachRow'
