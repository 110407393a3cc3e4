"""HTTP libraries for Python, as apps without OpenAI's package use them: requests|httpx|aiohttp|urllib"""

import json
import sys
import urllib.request

URL = "https://api.openai.com/v1/chat/completions"
HEADERS = {"authorization": "Bearer sk-test-trust", "content-type": "application/json"}
ASK = {"model": "gpt-5-mini", "messages": [{"role": "user", "content": "Hello"}]}


def with_requests() -> dict:
    import requests

    return requests.post(URL, json=ASK, headers=HEADERS, timeout=30).json()


def with_httpx() -> dict:
    import httpx

    return httpx.post(URL, json=ASK, headers=HEADERS, timeout=30).json()


def with_aiohttp() -> dict:
    import asyncio

    import aiohttp

    async def ask() -> dict:
        async with (
            aiohttp.ClientSession(trust_env=True) as session,
            session.post(URL, json=ASK, headers=HEADERS) as answer,
        ):
            return await answer.json()

    return asyncio.run(ask())


def with_urllib() -> dict:
    request = urllib.request.Request(URL, json.dumps(ASK).encode(), HEADERS)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


answer = globals()[f"with_{sys.argv[1]}"]()
print("answer", answer["choices"][0]["message"]["content"], flush=True)
