"""The openai package's client for Azure, which gets its server from AZURE_OPENAI_ENDPOINT."""

import openai

with openai.AzureOpenAI(max_retries=0) as client:
    ask = [{"role": "user", "content": "Hello"}]
    answer = client.chat.completions.create(model="my-deployment", messages=ask)
    print("answer", answer.choices[0].message.content, flush=True)
