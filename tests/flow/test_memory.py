import torch

from sklearn_nsgf.flow import _memory, particle_flow


def clouds(n=60, m=50):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, 2, generator=generator), torch.randn(m, 2, generator=generator) + 2


def test_a_room_is_that_of_a_name_a_shape_a_dtype_and_a_device():
    memory, like = _memory.Memory(), torch.zeros(3)
    room = memory.room("v", (2,), like)
    assert memory.room("v", [2], like + 1) is room
    for name, shape, other in [
        ("x", (2,), like),
        ("v", (3,), like),
        ("v", (2,), like.double()),
        ("v", (2,), like.to("meta")),
    ]:
        another = memory.room(name, shape, other)
        assert another is not room
        assert (another.shape, another.dtype, another.device) == (shape, other.dtype, other.device)


def test_memory_is_kept_for_clouds_of_the_same_device_alone():
    x, y = clouds()
    for first, second in ((x, x), (x, x.to("meta")), (x.to("meta"), x)):
        with _memory.kept_memory(first, y) as memory:
            memory.room("v", (2,), first)
        with _memory.kept_memory(second, y) as next_memory:
            assert (next_memory is memory) == (first is second)
            assert next_memory.room("v", (2,), second).device == second.device


def test_flows_do_not_share_memory_that_a_thread_keeps(monkeypatch):
    x, y = clouds()
    first = particle_flow(x, y, blur=0.3, n_steps=3)
    kept, before = _memory._thread.memory, first.x.clone()
    particle_flow(x + 1, y, blur=0.2, n_steps=3)
    assert _memory._thread.memory is kept
    particle_flow(x[:7], y, blur=0.2, n_steps=3)
    assert _memory._thread.memory.n_bytes() < kept.n_bytes() / 2
    assert torch.equal(first.x, before)
    assert torch.equal(first.x, particle_flow(x, y, blur=0.3, n_steps=3).x)
    monkeypatch.setattr(_memory, "_LARGEST_KEPT", 0)
    particle_flow(x, y, blur=0.3, n_steps=3)
    assert _memory._thread.memory is None
