-- Calls that did not end well, by model, outcome, status and error, the most frequent first.
SELECT
  request_model AS model,
  outcome,
  response_status_code AS status,
  error,
  count() AS calls,
  max(request_time) AS last_call
FROM table(llm_calls)
WHERE outcome != 'ok'
GROUP BY model, outcome, status, error
ORDER BY calls DESC, model, outcome, status, error
