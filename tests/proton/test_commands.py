EIGHT = """CREATE STREAM llm_calls (
  request_method string, request_url string, request_headers map(string, string), request_content string,
  request_time datetime64, response_time datetime64, response_status_code int, response_text string
)"""
