"""``kgw services``: which services there are and which waypoint serves them."""

from __future__ import annotations

import json

import click

from kgw.cli import terminal
from kgw.cli.manifests import files_option, output_option, ports, print_findings, services


@click.command(name="services")
@files_option(help="Manifests: a file, or a directory of them.", required=True)
@output_option("wide")
def command(files: tuple[str, ...], output: str) -> None:
    """Show the services, their VIPs, waypoints and endpoints.

    The table of `istioctl ztunnel-config service`, from manifests. ENDPOINTS counts the ready ones
    out of all; `-o wide` adds the ports. Errors in the manifests go to stderr.
    """
    from kgw.config import load

    config = load(files)
    print_findings(config.errors)
    rows = services(config)
    if output == "json":
        members = [
            {
                "namespace": row.namespace,
                "service": row.name,
                "vips": list(row.vips),
                "ports": [
                    {"name": port.name, "port": port.port, "protocol": port.protocol}
                    for port in ports(config, row)
                ],
                "waypoint": row.waypoint,
                "endpoints": {"ready": row.ready, "total": row.total},
            }
            for row in rows
        ]
        click.echo(json.dumps(members, indent=2))
        return
    heads = ["NAMESPACE", "SERVICE NAME", "SERVICE VIP", "WAYPOINT", "ENDPOINTS"]
    cells = [
        [row.namespace, row.name, ",".join(row.vips), row.waypoint or "None", row.endpoints]
        for row in rows
    ]
    if output == "wide":
        heads.append("PORTS")
        for row, line in zip(rows, cells, strict=True):
            declared = (f"{port.port}/{port.protocol}" for port in ports(config, row))
            line.append(",".join(declared) or "None")
    click.echo(terminal.table(heads, cells))
