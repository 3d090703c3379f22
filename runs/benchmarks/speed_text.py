"""The speed benchmark as text."""

from __future__ import annotations

from typing import Any


def table(result: dict[str, Any]) -> str:
    """Return the measurement as text."""
    rows = [f"{'':<30}{'agent steps/s':>16}{'frames/s':>16}{'slowest, quickest round':>28}"]
    for name, rate in result["agent_steps_per_second"].items():
        between = f"{min(result['rounds'][name]):,.0f} to {max(result['rounds'][name]):,.0f}"
        rows.append(
            f"{name:<30}{rate:>16,.0f}{result['frames_per_second'][name]:>16,.0f}{between:>28}"
        )
    rows.append(
        "whole loop: "
        + ", ".join(f"{share:.0%} of {what}" for what, share in result["whole_loop_share"].items())
    )
    if "ppo_rnd" in result:
        plain = result["ppo_rnd"]
        rows.append(
            f"plain PPO + RND: {plain['agent_steps_per_second']:,.0f}; the whole loop is"
            f" {plain['whole_loop_over_it']:.1f} x as fast"
        )
    learner = result["learner"]
    rows += [
        "",
        f"a learner step: {learner['seconds_per_step'] * 1e3:,.1f} ms ({learner['device']})",
    ]
    rows += [f"  {share:>6.1%}  {part}" for part, share in learner["share_of_time"].items()]
    top = learner["ceilings"]
    for unit, what in (("flop", "GFLOP"), ("bytes", "GB")):
        done = learner[f"{unit}_per_step"]
        rate = learner[f"{unit}_per_second"]
        ceiling = top[f"{unit}_per_second"]
        rows.append(
            f"  {done / 1e9:,.2f} {what} a step, {rate / 1e9:,.1f} {what}/s: {rate / ceiling:.0%}"
            f" of the {ceiling / 1e9:,.0f} reached alone"
        )
    if "growth" in result:
        head = ("agent steps/s", "ms a step", "x as given", "MB of model", "kB per env")
        rows += ["", f"{'learning alone':<30}" + "".join(f"{word:>16}" for word in head)]
        rate = result["agent_steps_per_second"]["learning"]
        given = {**learner, "agent_steps_per_second": rate, "x_as_given": 1.0}
        for name, row in {"as given": given, **result["growth"]}.items():
            cells = (
                f"{row['agent_steps_per_second']:,.0f}",
                f"{row['seconds_per_step'] * 1e3:,.1f}",
                f"{row['x_as_given']:.2f}",
                f"{row['bytes_of_model'] / 1e6:,.2f}",
                f"{row['bytes_per_environment'] / 1e3:,.1f}",
            )
            rows.append(f"{name:<30}" + "".join(f"{value:>16}" for value in cells))
    return "\n".join(rows)
