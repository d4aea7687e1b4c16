"""A tokenizer for tests: one token a byte, so that lengths can be counted by hand; id 0 is a real token."""

import numpy as np

from taskmill.backends.tokenizer import TextTokenizer

END = 1
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class Bytes(TextTokenizer):
    """`<end>` is token 1, the letter `a` token 0, any other byte its number and two."""

    name = "bytes"
    end = END
    size = 258

    def __init__(self, template="", begin=False):
        super().__init__()
        self.special_tokens = {"eos_token": "<end>", "bos_token": "<end>"}
        self.chat_template = template
        self.begin = (END,) if begin else ()

    def _rows(self, texts):
        return [np.array(self.one(text), np.uint32) for text in texts]

    def one(self, text):
        ids = []
        for at, part in enumerate(text.split("<end>")):
            ids += [END] if at else []
            ids += [0 if byte == ord("a") else byte + 2 for byte in part.encode()]
        return ids
