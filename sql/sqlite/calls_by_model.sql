-- How many calls each model got, how many failed, and when the first and the last of them began.
SELECT
  request_model AS model,
  operation,
  count(*) AS calls,
  count(*) FILTER (WHERE outcome <> 'ok') AS failed,
  count(*) FILTER (WHERE stream) AS streamed,
  min(request_time) AS first_call,
  max(request_time) AS last_call
FROM llm_calls
GROUP BY model, operation
ORDER BY calls DESC, model, operation
