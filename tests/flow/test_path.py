import torch

from sklearn_nsgf.flow import straight_path


def test_points_and_velocities_lie_on_the_segment():
    generator = torch.Generator().manual_seed(0)
    start, end = torch.rand(2, 50, 3, 4, generator=generator)
    t_start = torch.rand(50, generator=generator)
    t_end = t_start + 0.1 + torch.rand(50, generator=generator)
    fraction = torch.rand(50, generator=generator)
    sample = straight_path(start, end, t_start, t_end, fraction)
    torch.testing.assert_close(sample.t, t_start + fraction * (t_end - t_start))
    rows = (-1, 1, 1)
    back_to_start = sample.x_t - (sample.t - t_start).view(rows) * sample.v_t
    on_to_end = sample.x_t + (t_end - sample.t).view(rows) * sample.v_t
    torch.testing.assert_close(back_to_start, start)
    torch.testing.assert_close(on_to_end, end)
