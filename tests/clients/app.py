"""An app that calls OpenAI and knows nothing of any proxy: plain, async, streamed, failing and cancelled calls."""

import asyncio

from openai import APIStatusError, AsyncOpenAI, OpenAI

client = OpenAI()


def ask(model: str) -> dict:
    return {"model": model, "messages": [{"role": "user", "content": "Say hello."}]}


def plain() -> None:
    for model in ("gpt-5", "gpt-5-mini", "gpt-5-mini"):
        answer = client.chat.completions.create(**ask(model))
        print("plain     ", answer.model, "said", answer.choices[0].message.content)
    answer = client.responses.create(model="gpt-5", input="Say hello.")
    print("plain     ", answer.model, "said", answer.output_text)
    client.embeddings.create(model="text-embedding-3-small", input="hello")
    print("plain      an embedding")


async def asynchronous() -> None:
    async with AsyncOpenAI() as many:
        answers = await asyncio.gather(*(many.chat.completions.create(**ask("gpt-5-mini")) for _ in range(3)))
    print("async     ", len(answers), "answers at once")


def streamed() -> None:
    with client.chat.completions.create(**ask("gpt-5"), stream=True) as stream:
        text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    print("streamed   gpt-5 said", text)
    with client.responses.create(model="gpt-5-mini", input="Say hello.", stream=True) as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
    print("streamed   gpt-5-mini said", text)


def failing() -> None:
    try:
        client.chat.completions.create(**ask("gpt-9"))
    except APIStatusError as error:
        print("failing   ", error.status_code, error.code)
    client.chat.completions.create(**ask("gpt-5-busy"))
    print("failing    429, and the second try went well")


def cancelled() -> None:
    with client.chat.completions.create(**ask("gpt-5-slow"), stream=True) as stream:
        first = next(iter(stream))
    print("cancelled  after the chunk", first.choices[0].delta.role)


plain()
asyncio.run(asynchronous())
streamed()
failing()
cancelled()
