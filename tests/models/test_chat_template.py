"""Chat templates: honest ones give their parts, hostile ones are stopped soon and cleanly."""

import pytest

from dql.errors import ConfigError
from dql.models.chat_template import ChatTemplate
from dql.models.template_sandbox import MAX_SOURCE, TemplateEnvironment
from tests.models.tiny import CHAT_TEMPLATE

LLAMA3 = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}"
    "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim"
    " + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{%- if messages[0]['role'] == 'system' -%}{%- set first = messages[0]['content'] + '\n\n' -%}"
    "{%- set rest = messages[1:] -%}{%- else -%}{%- set first = '' -%}{%- set rest = messages -%}{%- endif -%}"
    "{%- for m in rest -%}{%- if (m['role'] == 'user') != (loop.index0 % 2 == 0) -%}"
    "{{ raise_exception('roles must alternate') }}{%- endif -%}"
    "{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\n' }}"
    "{{ first if loop.first else '' }}"
    "{{ m['content'] | trim }}{{ '<end_of_turn>\n' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<start_of_turn>model\n' }}{%- endif -%}"
)


def test_parts_of_chatml() -> None:
    template = ChatTemplate(CHAT_TEMPLATE)
    assert template.parts(["user"]) == ["<|im_start|>user\n", 0, "<|im_end|>\n<|im_start|>assistant\n"]
    assert template.parts(["user", "assistant"], answer=False) == [
        "<|im_start|>user\n", 0, "<|im_end|>\n<|im_start|>assistant\n", 1, "<|im_end|>\n",
    ]  # fmt: skip


def test_templates_of_other_families() -> None:
    llama = ChatTemplate(LLAMA3, (("bos_token", "<|begin_of_text|>"),))
    assert llama.parts(["user"]) == [
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n",
        0,
        "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    ]
    gemma = ChatTemplate(GEMMA, (("bos_token", "<bos>"),))
    assert gemma.parts(["system", "user"]) == [
        "<bos><start_of_turn>user\n", 0, "\n\n", 1, "<end_of_turn>\n<start_of_turn>model\n",
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="roles must alternate"):
        gemma.parts(["user", "user"])


def test_what_templates_commonly_use() -> None:
    source = (
        "{%- macro block(x) -%}[{{ x }}]{%- endmacro -%}"
        "{%- set ns = namespace(n=0) -%}{%- for m in messages -%}{%- set ns.n = ns.n + 1 -%}"
        "{%- if m.role.startswith('sys') -%}{%- continue -%}{%- endif -%}"
        "{{ block(ns.n) }}{{ m.content }}{% generation %}!{% endgeneration %}{%- endfor -%}"
        "{{ {'a': [1, 'é']} | tojson }}{{ tools is defined }}{{ ['b', 'a'] | sort | join(',') }}"
    )
    rendered = TemplateEnvironment().render(
        source, {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]}
    )
    assert rendered == '[2]u!{"a": [1, "é"]}Falsea,b'


DOUBLING = (
    "{{% set ns = namespace(x={start}) %}}{{% for i in range(60) %}}{{% set ns.x = {step} %}}{{% endfor %}}"
    "{{{{ ns.x }}}}"
)
HOSTILE = {
    "long range": "{% for i in range(10**9) %}x{% endfor %}",
    "nested loops": "{% for i in range(40000) %}{% for j in range(40000) %}{% endfor %}{% endfor %}",
    "long text": "{% for i in range(40000) %}" + "a" * 64 + "{% endfor %}",
    "long text, set": "{% set x %}{% for i in range(30000) %}" + "a" * 64 + "{% endfor %}{% endset %}{{ x }}",
    "python internals": "{{ ''.__class__.__mro__ }}",
    "globals of a function": "{{ raise_exception.__globals__ }}",
    "string product": "{{ 'a' * 10**9 }}",
    "string product, turned": "{{ 10**9 * 'a' }}",
    "list product": "{{ [1] * 10**8 }}",
    "power": "{{ 2 ** 100000000 }}",
    "padding": "{{ 'a'.ljust(10**9) }}",
    "padding filter": "{{ 'a' | center(10**9) }}",
    "format": "{{ '{:1000000000}'.format(1) }}",
    "format map": "{{ '{0.__class__}'.format_map({}) }}",
    "percent": "{{ '%1000000000d' % 1 }}",
    "doubling ~": DOUBLING.format(start="'ab'", step="ns.x ~ ns.x"),
    "doubling +": DOUBLING.format(start="'ab'", step="ns.x + ns.x"),
    "doubling list": DOUBLING.format(start="[1]", step="[ns.x, ns.x]"),
    "doubling dict": DOUBLING.format(start="{}", step="{'a': ns.x, 'b': ns.x}"),
    "squaring": DOUBLING.format(start="2", step="ns.x * ns.x"),
    "replace filter": DOUBLING.format(start="'aa'", step="ns.x | replace('a', ns.x)"),
    "replace method": DOUBLING.format(start="'aa'", step="ns.x.replace('a', ns.x)"),
    "join filter": DOUBLING.format(start="'aa'", step="[ns.x, ns.x] | join(ns.x)"),
    "join method": DOUBLING.format(start="'aa'", step="ns.x.join([ns.x, ns.x, ns.x])"),
    "endless macro": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "forking macro": "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "recursive loop": "{% for m in messages recursive %}{{ loop(messages) }}{% endfor %}",
    "deep nesting": "{{" + "(" * 3000 + "1" + ")" * 3000 + "}}",
    "deep blocks": "{% if 1 %}" * 500 + "{% endif %}" * 500,
    "other files": "{% include '/etc/passwd' %}",
    "modules": "{% import 'os' as os %}",
    "long source": " " * (MAX_SOURCE + 1),
    "not jinja": "{{",
    "division": "{{ 1 / 0 }}",
    "undefined": "{{ x.y.z }}",
    "no message": "hello",
    "changed message": "{{ messages[0]['content'] | replace('0', '1') }}",
    "doubled sentinel": "{{ messages[0]['content'] }}{{ messages[0]['content'][:1] }}",
}


@pytest.mark.timeout(10)
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_template_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="chat template"):
        ChatTemplate(HOSTILE[name]).parts(["user"])
