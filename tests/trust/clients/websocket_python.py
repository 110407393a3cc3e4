"""A WebSocket to OpenAI with the websockets package: sends one message, prints what comes back."""

import asyncio

import websockets


async def talk() -> None:
    async with websockets.connect(
        "wss://api.openai.com/v1/realtime?model=gpt-realtime",
        additional_headers={"authorization": "Bearer sk-test-trust"},
    ) as socket:
        await socket.send('{"type": "response.create"}')
        print("answer", await socket.recv(), flush=True)


asyncio.run(talk())
