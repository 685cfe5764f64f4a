"""The official OpenAI client as a caller. Prints one line of JSON for each step, and exits 1 where a claim fails.

    python client.py BASE_URL COMMAND [--host NAME] [--model NAME]

BASE_URL with `--host` is how a client talks to a sidecar whose address it was given as base URL. Without it, and with
HTTP_PROXY set, the same client goes through the sidecar as a forward proxy.

Commands: chat, stream, streams, steady, answered, embeddings, models, cancel. `cancel` starts a long stream, prints {"streaming": ...},
waits for a line on stdin, closes the stream, prints {"closed": ...} and stays until stdin ends, so that what frees the
server is the closed stream and not the death of a process.
"""

import argparse
import concurrent.futures
import json
import sys
import time

import openai


def show(**figures):
    print(json.dumps(figures), flush=True)


MESSAGES = [{"role": "user", "content": "which way does the tide turn"}]
TOKENS = 24


def chat(client, model):
    answer = client.chat.completions.create(model=model, messages=MESSAGES, max_tokens=TOKENS)
    assert answer.choices[0].message.content.strip(), "an empty answer"
    assert answer.usage.completion_tokens == TOKENS, answer.usage
    show(text=answer.choices[0].message.content, completion_tokens=answer.usage.completion_tokens)


def stream(client, model):
    text, usage, chunks, finish = "", None, 0, None
    for chunk in client.chat.completions.create(
        model=model, messages=MESSAGES, max_tokens=TOKENS, stream=True, stream_options={"include_usage": True}
    ):
        chunks += 1
        if chunk.usage:
            usage = chunk.usage
        if chunk.choices:
            text += chunk.choices[0].delta.content or ""
            finish = chunk.choices[0].finish_reason or finish
    assert usage is not None, "no usage chunk"
    assert usage.completion_tokens == TOKENS, usage
    assert chunks >= TOKENS, f"{chunks} chunks: the stream did not arrive token by token"
    assert finish == "length", finish
    show(text=text, completion_tokens=usage.completion_tokens, chunks=chunks)


def answered(client, model):
    """Who answered, by the answer and by the sidecar's word."""

    def shown(raw, model, tokens):
        header = raw.headers.get
        return {
            "model": model,
            "completion_tokens": tokens,
            "fallback": header("x-outrigger-fallback"),
            "fallback_model": header("x-outrigger-fallback-model"),
        }

    create = client.chat.completions.with_raw_response.create
    raw = create(model=model, messages=MESSAGES, max_tokens=TOKENS)
    answer = raw.parse()
    whole = shown(raw, answer.model, answer.usage.completion_tokens)
    raw = create(
        model=model, messages=MESSAGES, max_tokens=TOKENS, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(raw.parse())
    show(whole=whole, stream=shown(raw, chunks[0].model, chunks[-1].usage.completion_tokens))


def steady(client, model):
    """A long stream, of which it says when it has begun."""
    text, usages, finish, roles, ids = "", [], None, 0, set()
    answer = client.chat.completions.create(
        model=model,
        messages=MESSAGES,
        max_tokens=1200,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    for number, chunk in enumerate(answer):
        if number == 10:
            show(streaming=True)
        # llama.cpp says another second in `created` where the answer takes longer than one.
        ids.add((chunk.id, chunk.model))
        if chunk.usage:
            usages.append(chunk.usage)
        if chunk.choices:
            delta = chunk.choices[0].delta
            text += delta.content or ""
            roles += delta.role is not None
            finish = chunk.choices[0].finish_reason or finish
    assert len(usages) == 1, usages
    show(
        text=text,
        finish=finish,
        roles=roles,
        ids=len(ids),
        usages=len(usages),
        prompt_tokens=usages[0].prompt_tokens,
        completion_tokens=usages[0].completion_tokens,
    )


def embeddings(client, model):
    answer = client.embeddings.create(model=model, input=["the sea", "a boat at sea"])
    assert len(answer.data) == 2
    widths = {len(item.embedding) for item in answer.data}
    assert widths == {64}, widths
    assert answer.data[0].embedding != answer.data[1].embedding
    show(vectors=len(answer.data), width=widths.pop(), prompt_tokens=answer.usage.prompt_tokens)


def streams(client, model):
    def one(number):
        text = ""
        for chunk in client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": f"tide {number}"}], max_tokens=400, stream=True
        ):
            if chunk.choices:
                text += chunk.choices[0].delta.content or ""
        assert text, "an empty answer"

    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        done = list(pool.map(one, range(12)))
    show(streams=len(done))


def models(client, model):
    names = [item.id for item in client.models.list().data]
    assert model in names, names
    show(models=names)


def cancel(client, model):
    answer = client.chat.completions.create(model=model, messages=MESSAGES, max_tokens=15000, stream=True)
    for number, _ in enumerate(answer):
        if number == 10:
            break
    show(streaming=True)
    sys.stdin.readline()
    answer.close()
    show(closed=True)
    sys.stdin.read()


def budget(client, model):
    """Streams without a maximum until their budget is spent: each ends as one that has reached its length."""
    total, streams = 0, 0
    while True:
        try:
            answer = client.chat.completions.create(
                model=model,
                messages=MESSAGES,
                stream=True,
                stream_options={"include_usage": True},
                extra_headers={"x-tier": "free"},
            )
        except openai.RateLimitError as error:
            assert error.code == "token_budget_exceeded", error
            assert error.type == "tokens", error
            assert int(error.response.headers["retry-after"]) > 0, error.response.headers
            if int(error.response.headers["retry-after"]) > 1:
                break
            time.sleep(0.2)
            continue
        usage, finish = None, None
        for chunk in answer:
            usage = chunk.usage or usage
            if chunk.choices:
                finish = chunk.choices[0].finish_reason or finish
        assert finish == "length", finish
        assert usage is not None, "no usage chunk"
        total, streams = total + usage.completion_tokens, streams + 1
        assert streams < 100, "the budget does not end"
    show(streams=streams, completion_tokens=total)


def main():
    known = [chat, stream, streams, steady, answered, embeddings, models, cancel, budget]
    commands = {command.__name__: command for command in known}
    arguments = argparse.ArgumentParser()
    arguments.add_argument("base_url")
    arguments.add_argument("command", choices=commands)
    arguments.add_argument("--host")
    arguments.add_argument("--model", default="tiny")
    arguments = arguments.parse_args()
    client = openai.OpenAI(
        base_url=arguments.base_url,
        api_key="unused",
        default_headers={"Host": arguments.host} if arguments.host else None,
        # A retry in the client would hide a failure of the mesh.
        max_retries=0,
        timeout=30,
    )
    commands[arguments.command](client, arguments.model)


if __name__ == "__main__":
    main()
