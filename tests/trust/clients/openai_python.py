"""The openai package, as an app uses it: openai_python.py sync|async|stream|async-stream"""

import asyncio
import sys

import openai

ASK = {"model": "gpt-5-mini", "messages": [{"role": "user", "content": "Hello"}]}


def tell(kind: str, text: str | None) -> None:
    print(kind, text, flush=True)


async def asynchronous(stream: bool) -> None:
    async with openai.AsyncOpenAI(max_retries=0) as client:
        if stream:
            async for chunk in await client.chat.completions.create(stream=True, **ASK):
                tell("chunk", chunk.choices[0].delta.content)
        else:
            tell("answer", (await client.chat.completions.create(**ASK)).choices[0].message.content)


mode = sys.argv[1]
if mode.startswith("async"):
    asyncio.run(asynchronous(mode == "async-stream"))
else:
    with openai.OpenAI(max_retries=0) as client:
        if mode == "stream":
            for chunk in client.chat.completions.create(stream=True, **ASK):
                tell("chunk", chunk.choices[0].delta.content)
        else:
            tell("answer", client.chat.completions.create(**ASK).choices[0].message.content)
