-- Creates the target of the rollup: a row for each minute, model and outcome, kept a year.
CREATE STREAM IF NOT EXISTS llm_calls_per_minute
(
  `minute` datetime64(3, 'UTC'),
  `model` low_cardinality(string) DEFAULT '',
  `outcome` low_cardinality(string) DEFAULT '',
  `calls` uint64 DEFAULT 0,
  `limited` uint64 DEFAULT 0,
  `input` nullable(int64),
  `output` nullable(int64),
  `latency_p50` float64 DEFAULT 0,
  `latency_p90` float64 DEFAULT 0,
  `latency_max` int64 DEFAULT 0
)
TTL to_datetime(_tp_time) + INTERVAL 365 DAY
