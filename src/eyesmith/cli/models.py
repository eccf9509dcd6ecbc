"""`eyesmith models`: the named models and what each of them costs."""

from eyesmith.cli.dispatch import call
from eyesmith.cli.output import AsJson, print_json, print_table


def main(argv: list[str], prog: str) -> int:
    """Run the verb on its own arguments."""
    return call(models, argv, prog=prog)


def models(*, as_json: AsJson = False) -> int:
    """Every named model: input size, parameters and multiply-adds (MACs) of its image and text tower.

    MACs are those of one image and one text of full length, attention products included.
    """
    from eyesmith.models.cost import model_cost
    from eyesmith.models.registry import config, list_models

    costs = {name: model_cost(config(name)) for name in list_models()}
    if as_json:
        print_json(
            [
                {
                    "name": name,
                    "image_size": cost.image_size,
                    "embed_dim": cost.embed_dim,
                    "image_params": cost.image.params,
                    "image_macs": cost.image.macs,
                    "text_params": cost.text and cost.text.params,
                    "text_macs": cost.text and cost.text.macs,
                }
                for name, cost in costs.items()
            ]
        )
        return 0
    columns = ("name", "image px", "embed dim", "image params", "image MACs", "text params", "text MACs")
    rows = [
        (
            name,
            "x".join(map(str, dict.fromkeys(cost.image_size))),
            cost.embed_dim,
            f"{cost.image.params / 1e6:.2f} M",
            f"{cost.image.macs / 1e9:.2f} G",
            f"{cost.text.params / 1e6:.2f} M" if cost.text else "pre-trained",
            f"{cost.text.macs / 1e9:.2f} G" if cost.text else None,
        )
        for name, cost in costs.items()
    ]
    print_table(columns, rows, right=columns[1:])
    return 0
