"""Serves a model with llama.cpp's own OpenAI-compatible HTTP server until killed.

    python serve.py MODEL.gguf HOST PORT [--embedding] [--alias NAME]

`--embedding` starts it as an embedding server (mean pooling), which does not answer chats: llama.cpp has one mode per
process.
"""

import argparse
import signal
import threading

import xllamacpp


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("model")
    arguments.add_argument("host")
    arguments.add_argument("port", type=int)
    arguments.add_argument("--embedding", action="store_true")
    arguments.add_argument("--alias", default="tiny")
    arguments = arguments.parse_args()

    params = xllamacpp.CommonParams()
    params.model.path = arguments.model
    params.model_alias = {arguments.alias}
    params.hostnames = [arguments.host]
    params.port = arguments.port
    params.endpoint_metrics = True
    params.n_parallel = 4
    # For all slots together: 16,384 tokens each keep a generation going for many seconds, which is what a test that
    # cancels one needs.
    params.n_ctx = 4 * 16384
    params.cpuparams.n_threads = 1
    params.cpuparams_batch.n_threads = 1
    if arguments.embedding:
        params.embedding = True
        params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN

    server = xllamacpp.Server(params)
    print("listening on", server.listening_address, flush=True)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Event().wait()


if __name__ == "__main__":
    main()
