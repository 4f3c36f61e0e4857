"""Pushing weights to a vLLM server: everything up to the GPU, with stand-ins for vLLM."""

import copy
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model

from equilign.endpoints import EndpointError
from equilign.errors import ConfigError, ModelError
from equilign.rollout import SamplingConfig
from equilign.rollout.served_weights import fingerprint, served_info, served_weights
from equilign.rollout.server import ServerOptions
from equilign.rollout.vllm import AdapterPush, NcclPush, VLLMSampler
from tests.enumerable import END, B, tiny_model, tiny_tokenizer
from tests.rollout.completion_server import CompletionServer

pytestmark = pytest.mark.filterwarnings("ignore:.*tie_word_embeddings.*:UserWarning")
CONFIG = SamplingConfig(max_new_tokens=2)
REPLY = {"choices": [{"text": "b", "finish_reason": "stop", "token_ids": [B, END]}]}


def lora(seed=0, **options):
    torch.manual_seed(seed)
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], **options)
    model = get_peft_model(tiny_model(), config)
    shake(model)
    return model


@torch.no_grad()
def shake(model, size=0.1):
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.add_(size * torch.randn_like(parameter))


def merged(model):
    """Independent of ours: PEFT's own merging, of a copy."""
    return dict(copy.deepcopy(model).merge_and_unload().named_parameters())


def assert_same(got, want):
    assert set(got) == set(want)
    for name, value in got.items():
        torch.testing.assert_close(value, want[name].detach(), rtol=0, atol=1e-15)


# -- the weights ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"modules_to_save": ["lm_head"]},
        {"use_rslora": True, "lora_alpha": 3},
        {"rank_pattern": {"q_proj": 2}},
    ],
)
def test_adapters_are_merged_as_peft_does(options):
    model = lora(**options)
    before = {n: p.clone() for n, p in model.named_parameters()}
    got = dict(served_weights(model))
    assert_same(got, merged(model))
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())


def test_embeddings_with_adapters():
    torch.manual_seed(0)
    config = LoraConfig(r=2, target_modules=["embed_tokens", "lm_head"])
    model = get_peft_model(tiny_model(), config)
    shake(model)
    assert_same(dict(served_weights(model)), merged(model))


def test_the_merged_weights_play_as_the_adapted_model():
    model = lora(modules_to_save=["lm_head"])
    plain = tiny_model(seed=5)
    plain.load_state_dict(dict(served_weights(model)), strict=False)
    ids = torch.tensor([[1, 2, 2, 1]])
    with torch.no_grad():
        torch.testing.assert_close(plain(ids).logits, model(ids).logits)


def test_disabled_adapters_leave_the_base_model():
    model = lora(modules_to_save=["lm_head"])
    with model.disable_adapter():
        got = dict(served_weights(model))
    assert_same(got, dict(tiny_model().named_parameters()))
    assert not torch.equal(dict(served_weights(model))["lm_head.weight"], got["lm_head.weight"])


def test_two_active_adapters_add_up():
    model = lora()
    model.add_adapter("second", LoraConfig(r=2, target_modules=["q_proj"]))
    model.base_model.set_adapter(["default", "second"])
    shake(model)
    name = "model.layers.0.self_attn.q_proj.weight"
    layer = model.get_base_model().model.layers[0].self_attn.q_proj
    want = layer.base_layer.weight + sum(layer.get_delta_weight(a) for a in ("default", "second"))
    torch.testing.assert_close(dict(served_weights(model))[name], want.detach())


@pytest.mark.parametrize("make", [tiny_model, lora, lambda: lora(modules_to_save=["lm_head"])])
def test_what_is_announced_is_what_is_sent(make):
    model = make()
    sent = [(n, t.dtype, tuple(t.shape)) for n, t in served_weights(model)]
    assert [(w.name, w.dtype, w.shape) for w in served_info(model)] == sent
    assert all(not t.requires_grad for _, t in served_weights(model))


def test_a_plain_model_is_sent_as_it_is():
    model = tiny_model()
    assert_same(dict(served_weights(model)), dict(model.named_parameters()))


@pytest.mark.filterwarnings("ignore:.*lora_bias.*")
@pytest.mark.parametrize("options", [{"use_dora": True}, {"lora_bias": True}])
def test_adapters_that_are_more_than_a_sum_are_refused(options):
    with pytest.raises(ModelError, match="no plain LoRA"):
        dict(served_weights(lora(**options)))


def test_other_adapters_are_refused():
    from peft import IA3Config

    config = IA3Config(target_modules=["q_proj"], feedforward_modules=[])
    with pytest.raises(ModelError, match="no plain LoRA"):
        dict(served_weights(get_peft_model(tiny_model(), config)))


def test_the_fingerprint_sees_every_change():
    model = lora()
    marks = [fingerprint(model)]
    shake(model)
    marks.append(fingerprint(model))
    with torch.no_grad():
        next(p for p in model.parameters() if p.requires_grad).data[0, 0] += 1e-9
    marks.append(fingerprint(model))
    with model.disable_adapter():
        marks.append(fingerprint(model))
    assert len(set(marks)) == 4
    assert fingerprint(model) == marks[2]


def test_the_fingerprint_sees_two_rows_exchanged_in_sign():
    model = tiny_model()
    mark = fingerprint(model)
    with torch.no_grad():
        model.lm_head.weight.neg_()
    assert fingerprint(model) != mark


# -- the sampler ------------------------------------------------------------------------------


class Recorder:
    def __init__(self, name=None):
        self.pushes, self.name, self.closed = [], name, False

    def push(self, model):
        self.pushes.append({n: t.clone() for n, t in served_weights(model)})
        return self.name

    def close(self):
        self.closed = True


def options_of(server):
    return ServerOptions("policy", server.url, timeout=60.0, tries=1)


def test_weights_are_pushed_when_and_only_when_they_changed():
    model, push = lora(), Recorder()
    with CompletionServer(lambda *_: REPLY) as server:
        sampler = VLLMSampler(model, tiny_tokenizer(), CONFIG, options_of(server), push=push)
        sampler.sample(["a"], 1, seed=0)
        sampler.sample(["b"], 1, seed=1)
        assert len(push.pushes) == 1
        shake(model)
        sampler.sample(["a"], 1, seed=2)
        assert len(push.pushes) == 2
        with model.disable_adapter():
            sampler.sample(["a"], 1, seed=3)
        sampler.sample(["a"], 1, seed=4)
        sampler.close()
    assert len(push.pushes) == 4
    assert_same(push.pushes[1], push.pushes[3])
    assert_same(push.pushes[2], dict(tiny_model().named_parameters()))
    assert push.closed
    assert {body["model"] for body in server.bodies} == {"policy"}
    assert server.bodies[0]["stop_token_ids"] == [END]


def test_a_push_that_failed_is_made_again():
    model, push = tiny_model(), Recorder()
    with CompletionServer(lambda *_: REPLY) as server:
        sampler = VLLMSampler(model, tiny_tokenizer(), CONFIG, options_of(server), push=push)
        assert sampler.push()
        assert not sampler.push()
        push.push = lambda model: (_ for _ in ()).throw(EndpointError("gone", reason="x"))
        shake(model)
        for _ in range(2):
            with pytest.raises(EndpointError):
                sampler.push()
        del push.push
        assert sampler.push()
        sampler.close()


def test_an_unknown_way_to_push():
    options = ServerOptions("m")
    with pytest.raises(ConfigError, match="push must be"):
        VLLMSampler(tiny_model(), tiny_tokenizer(), CONFIG, options, push="pigeon")
    with pytest.raises(ConfigError, match="needs adapter_folder"):
        VLLMSampler(tiny_model(), tiny_tokenizer(), CONFIG, options, push="adapter")


# -- adapters over HTTP -----------------------------------------------------------------------


def test_adapters_are_loaded_under_new_names_and_old_ones_unloaded(tmp_path):
    seen = []

    def answer(path, body, n):
        if path == "/v1/load_lora_adapter":
            place = tmp_path / body["lora_path"].removeprefix("/mnt/adapters/")
            seen.append((place / "adapter_model.safetensors").is_file())
            return 200, f"Success: LoRA adapter '{body['lora_name']}' added successfully."
        return (200, "Success") if path == "/v1/unload_lora_adapter" else REPLY

    model = lora()
    with CompletionServer(answer) as server:
        push = AdapterPush(options_of(server), tmp_path, served_folder="/mnt/adapters")
        sampler = VLLMSampler(model, tiny_tokenizer(), CONFIG, options_of(server), push=push)
        sampler.sample(["a"], 1, seed=0)
        shake(model)
        sampler.sample(["a"], 1, seed=0)
        with model.disable_adapter():
            sampler.sample(["a"], 1, seed=0)
        sampler.sample(["a"], 1, seed=0)
        sampler.close()
    paths = [path.removeprefix("/v1/") for path, _ in server.requests]
    load, unload, ask = "load_lora_adapter", "unload_lora_adapter", "completions"
    assert paths == [load, ask, load, unload, ask, unload, ask, load, ask, unload]
    names = [body["lora_name"] for path, body in server.requests if path.endswith("/" + load)]
    models = [body["model"] for path, body in server.requests if path.endswith(ask)]
    assert len(set(names)) == 3
    assert models == [names[0], names[1], "policy", names[2]]
    assert seen == [True] * 3
    assert not list(tmp_path.iterdir())


def test_adapters_that_vllm_cannot_serve(tmp_path):
    push = AdapterPush(ServerOptions("m"), tmp_path)
    with pytest.raises(ModelError, match="needs a PEFT model"):
        push.push(tiny_model())
    with pytest.raises(ModelError, match="modules_to_save"):
        push.push(lora(modules_to_save=["lm_head"]))
    model = lora()
    model.add_adapter("second", LoraConfig(r=2, target_modules=["q_proj"]))
    model.base_model.set_adapter(["default", "second"])
    with pytest.raises(ModelError, match="one active adapter"):
        push.push(model)


def test_a_server_that_loads_no_adapters(tmp_path):
    with CompletionServer(lambda *_: (404, '{"detail": "Not Found"}')) as server:
        push = AdapterPush(options_of(server), tmp_path)
        with pytest.raises(EndpointError, match="HTTP 404"):
            push.push(lora())
        push.close()


# -- NCCL, with stand-ins for vLLM ------------------------------------------------------------


class FakeEngine:
    def __init__(self, init_info, client, source):
        self.init_info, self.client, self.source = init_info, client, source
        self.sent, self.ended = [], False

    def send_weights(self):
        announced = [(m.name, m.dtype, m.shape) for m in self.source.metadata()]
        sent = [(n, t.clone()) for n, t in self.source]
        assert announced == [(n, t.dtype, tuple(t.shape)) for n, t in sent]
        assert all(t.is_contiguous() for _, t in sent)
        self.sent.append(dict(sent))

    def shutdown(self):
        self.ended = True


@pytest.fixture
def fake_vllm(monkeypatch):
    """The names that vLLM documents, and nothing behind them."""
    engines = []

    def trainer_init(*, init_info, client, source):
        engines.append(FakeEngine(init_info, client, source))
        return engines[-1]

    modules = {
        "vllm": {},
        "vllm.distributed": {},
        "vllm.distributed.weight_transfer": {
            "WeightSource": object,
            "ParamMeta": lambda name, dtype, shape: SimpleNamespace(
                name=name, dtype=dtype, shape=shape
            ),
            "HTTPVLLMWeightSyncClient": lambda url: SimpleNamespace(base_url=url),
            "WeightTransferTrainerFactory": SimpleNamespace(trainer_init=trainer_init),
        },
        "vllm.distributed.weight_transfer.nccl_engine": {"NCCLTrainerInitInfo": SimpleNamespace},
        "vllm.utils": {},
        "vllm.utils.network_utils": {"get_ip": lambda: "10.0.0.1", "get_open_port": lambda: 4321},
    }
    for name, content in modules.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    return engines


def admin(path, body, n):
    if path == "/get_world_size":
        return {"world_size": 2}
    return {"success": True} if path == "/reset_prefix_cache" else REPLY


def test_all_weights_are_sent_merged_once_per_change(fake_vllm):
    model = lora()
    with CompletionServer(admin) as server:
        sampler = VLLMSampler(model, tiny_tokenizer(), CONFIG, options_of(server))
        sampler.sample(["a"], 1, seed=0)
        sampler.sample(["a"], 1, seed=1)
        shake(model)
        sampler.sample(["a"], 1, seed=2)
        sampler.close()
    (engine,) = fake_vllm
    assert vars(engine.init_info) == {
        "master_address": "10.0.0.1",
        "master_port": 4321,
        "world_size": 3,
        "rank": 0,
        "packed": True,
    }
    assert engine.client.base_url == server.url.removesuffix("/v1")
    assert len(engine.sent) == 2
    assert_same(engine.sent[1], merged(model))
    assert engine.ended
    reset, ask = "/reset_prefix_cache", "/v1/completions"
    paths = [path for path, _ in server.requests]
    assert paths == ["/get_world_size", reset, ask, ask, reset, ask]


def test_a_cache_that_is_not_forgotten_is_an_error(fake_vllm):
    def answer(path, body, n):
        return {"success": False} if path == "/reset_prefix_cache" else admin(path, body, n)

    with CompletionServer(answer) as server:
        push = NcclPush(options_of(server))
        with pytest.raises(EndpointError, match="prefix cache"):
            push.push(tiny_model())
        push.close()


def test_a_server_without_its_development_mode(fake_vllm):
    with CompletionServer(lambda *_: (404, "{}")) as server:
        push = NcclPush(options_of(server))
        with pytest.raises(EndpointError, match="HTTP 404"):
            push.push(tiny_model())
        push.close()
    with CompletionServer(lambda *_: {}) as server:
        push = NcclPush(options_of(server))
        with pytest.raises(EndpointError, match="VLLM_SERVER_DEV_MODE=1"):
            push.push(tiny_model())
        push.close()


def test_vllm_that_is_missing_or_too_old(fake_vllm, monkeypatch):
    with CompletionServer(admin) as server:
        push = NcclPush(options_of(server))
        transfer = sys.modules["vllm.distributed.weight_transfer"]
        monkeypatch.delattr(transfer, "WeightTransferTrainerFactory")
        with pytest.raises(ConfigError, match=r"needs vLLM 0\.28 or newer.*equilign\[vllm\]"):
            push.push(tiny_model())
        monkeypatch.setitem(sys.modules, "vllm.distributed.weight_transfer", None)
        with pytest.raises(ConfigError, match="it is not installed"):
            push.push(tiny_model())
        push.close()


def test_several_training_processes_are_refused(fake_vllm, monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    push = NcclPush(ServerOptions("m"))
    with pytest.raises(ConfigError, match="one training process"):
        push.push(tiny_model())
