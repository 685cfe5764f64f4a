"""The echo service of `tests/src/echo.rs` with grpcio: a server, and a client that checks every kind of call.

    python echo.py serve HOST:PORT
    python echo.py call HOST:PORT AUTHORITY

The messages have one string field; they are encoded by hand, so that no generated code is needed.
"""

import sys
import time
from concurrent import futures

import grpc

SERVICE = "test.echo.v1.Echo"


def encode(text):
    data = text.encode()
    length, prefix = len(data), bytearray(b"\x0a")
    while length >= 0x80:
        prefix.append(length & 0x7F | 0x80)
        length >>= 7
    prefix.append(length)
    return bytes(prefix) + data if data else b""


def decode(message):
    if not message:
        return ""
    assert message[0] == 0x0A, message
    at = 1
    while message[at] & 0x80:
        at += 1
    return message[at + 1 :].decode()


CODES = {code.value[0]: code for code in grpc.StatusCode}


def unary(text, context):
    context.send_initial_metadata((("x-initial", "head"),))
    if text.startswith("fail:"):
        context.set_trailing_metadata((("x-trailing", "tail"), ("x-trailing-bin", b"\x00\xff\x07")))
        context.abort(CODES[int(text[5:])], "as you asked: ünïcode")
    if text.startswith("sleep:"):
        time.sleep(int(text[6:]) / 1000)
    if text == "deadline":
        remaining = context.time_remaining()
        return "none" if remaining is None else f"{int(remaining * 1000)}m"
    return text


def count(text, context):
    for number in range(int(text.removeprefix("count:"))):
        yield str(number)


def serve(address):
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary, decode, encode),
        "ServerStream": grpc.unary_stream_rpc_method_handler(count, decode, encode),
        "ClientStream": grpc.stream_unary_rpc_method_handler(lambda texts, _: " ".join(texts), decode, encode),
        "Both": grpc.stream_stream_rpc_method_handler(lambda texts, _: texts, decode, encode),
    }
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    if not server.add_insecure_port(address):
        sys.exit(f"cannot listen on {address}")
    server.start()
    print("listening", flush=True)
    server.wait_for_termination()


def call(address, authority):
    channel = grpc.insecure_channel(address, options=[("grpc.default_authority", authority), ("grpc.enable_http_proxy", 0)])

    def path(name):
        return f"/{SERVICE}/{name}"

    echo = channel.unary_unary(path("Unary"), encode, decode)
    answer, info = echo.with_call("hello", timeout=10)
    assert answer == "hello", answer
    assert dict(info.initial_metadata())["x-initial"] == "head", info.initial_metadata()
    assert info.code() == grpc.StatusCode.OK

    large = "x" * 1_000_000
    assert echo(large, timeout=10) == large

    counted = list(channel.unary_stream(path("ServerStream"), encode, decode)("count:500", timeout=10))
    assert counted == [str(number) for number in range(500)], len(counted)

    joined = channel.stream_unary(path("ClientStream"), encode, decode)(iter(["a", "b", "c"]), timeout=10)
    assert joined == "a b c", joined

    def texts():
        # The next message only after the echo of the one before.
        for number in range(20):
            while len(echoes) < number:
                time.sleep(0.001)
            yield f"message {number}"

    echoes = []
    for text in channel.stream_stream(path("Both"), encode, decode)(texts(), timeout=20):
        echoes.append(text)
    assert echoes == [f"message {number}" for number in range(20)], echoes

    for code in (3, 5, 8, 14, 16):
        try:
            echo(f"fail:{code}", timeout=10)
            raise AssertionError(f"no error where {code} was asked for")
        except grpc.RpcError as error:
            assert error.code() == CODES[code], error
            assert error.details() == "as you asked: ünïcode", error.details()
            trailers = dict(error.trailing_metadata())
            assert trailers["x-trailing"] == "tail" and trailers["x-trailing-bin"] == b"\x00\xff\x07", trailers

    told = echo("deadline", timeout=7)
    assert told != "none", "the deadline did not reach the server"

    start = time.monotonic()
    try:
        echo("sleep:5000", timeout=0.5)
        raise AssertionError("no error after the deadline")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error
    assert time.monotonic() - start < 3

    nobody = grpc.insecure_channel(address, options=[("grpc.default_authority", "nobody"), ("grpc.enable_http_proxy", 0)])
    try:
        nobody.unary_unary(path("Unary"), encode, decode)("x", timeout=10)
        raise AssertionError("an answer from an unknown service")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.UNIMPLEMENTED, error
        assert dict(error.trailing_metadata())["x-outrigger-reason"] == "no-route", error.trailing_metadata()
    print("all calls as they should be", flush=True)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", address]:
            serve(address)
        case ["call", address, authority]:
            call(address, authority)
        case _:
            sys.exit(__doc__)
