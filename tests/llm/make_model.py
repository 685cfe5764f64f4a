"""Writes a tiny llama model with random weights: enough for a real server to tokenize, batch, sample and stream.

    python make_model.py OUT.gguf

Two layers, 64 dimensions, about 0.5 MB. The vocabulary is 256 byte tokens (so that any text can be encoded) and some
words. Byte and control tokens have zero output weights: their logit is 0 while that of the words is random around it,
so what comes out are words, and a generation ends at `max_tokens` and not at a random end-of-sequence token.
"""

import sys

import gguf
import numpy as np

LAYERS, WIDTH, HEADS, FEED_FORWARD, CONTEXT = 2, 64, 4, 128, 65536
SEED = 20  # the same file every time

WORDS = """
a able about above after again air all also always an and another any are around as ask at away back bay be beach boat
bottom bow bright build but buoy by calm came can canoe captain cargo carry change clear close cloud coast cold come
course crew current cut dark day deck deep did do down draft drift drop each early east easy ebb end even every far fast
feel few find first fish fleet float flow fog follow for found free from full gale gave get give go good grass great
green gulf had half hand harbour has have he head hear heavy help her here high him his hold home hour how hull i if in
into is island it its just keep keel know land large last late lead leave left less let life light like line little long
look lower made main make many mast mile mist moon more most much must name near need net new next night no north not now
oar ocean of off old on once one only open or other our out outrigger over own paddle part pass place plan point port
pull quiet rain read reef rest ride rig right river road rock rope round row rudder run sail salt same sand say sea see
set shallow shape she ship shoal shore short should side sky slow small so some soon sound south spray star start stay
steady steer stern still stone storm strait stream strong sun swell swift tack take tell than that the their them then
there these they this through tide time to told too top toward trim true turn two under until up us very voyage wake was
watch water wave way we weather well went were west what when where which while white who why wide wind with work world
would year you your
""".split()

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


def vocabulary():
    """Tokens, their scores (longer words first, as SentencePiece merges) and their types."""
    kind = gguf.TokenType
    entries = [("<unk>", 0.0, kind.UNKNOWN), ("<s>", 0.0, kind.CONTROL), ("</s>", 0.0, kind.CONTROL)]
    entries += [(f"<0x{byte:02X}>", 0.0, kind.BYTE) for byte in range(256)]
    entries += [("\u2581" + word, -float(rank + 1), kind.NORMAL) for rank, word in enumerate(WORDS)]
    return entries


def main(path):
    random = np.random.default_rng(SEED)
    entries = vocabulary()
    first_word = len(entries) - len(WORDS)

    def weights(*shape, scale=0.08):
        return (random.standard_normal(shape) * scale).astype(np.float32)

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("outrigger-tiny")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(entries))

    writer.add_tokenizer_model("llama")
    writer.add_token_list([token for token, _, _ in entries])
    writer.add_token_scores([score for _, score, _ in entries])
    writer.add_token_types([kind for _, _, kind in entries])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(True)
    writer.add_chat_template(CHAT_TEMPLATE)

    output = weights(len(entries), WIDTH, scale=0.6)
    output[:first_word] = 0.0
    writer.add_tensor("token_embd.weight", weights(len(entries), WIDTH, scale=0.5))
    writer.add_tensor("output.weight", output)
    writer.add_tensor("output_norm.weight", np.ones(WIDTH, dtype=np.float32))
    for layer in range(LAYERS):
        block = f"blk.{layer}."
        writer.add_tensor(block + "attn_norm.weight", np.ones(WIDTH, dtype=np.float32))
        writer.add_tensor(block + "ffn_norm.weight", np.ones(WIDTH, dtype=np.float32))
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            writer.add_tensor(f"{block}{name}.weight", weights(WIDTH, WIDTH))
        writer.add_tensor(block + "ffn_gate.weight", weights(FEED_FORWARD, WIDTH))
        writer.add_tensor(block + "ffn_up.weight", weights(FEED_FORWARD, WIDTH))
        writer.add_tensor(block + "ffn_down.weight", weights(WIDTH, FEED_FORWARD))

    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
