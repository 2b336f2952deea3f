"""Ranks of one node listen on loopback only: torch asks nobody who they are."""

import json
import subprocess
import sys
from ipaddress import ip_address

RANK = """
import json, sys
import psutil, torch
from helios_engine.parallel.ranks import init_ranks, leave_ranks
from helios_services.config import ParallelConfig
from helios_services.deployments.ranks.link import Meeting, keep_on_loopback

rank = int(sys.argv[1])
if rank == 0:
    meeting = Meeting(ParallelConfig())
    print(meeting.address, flush=True)
address = meeting.address if rank == 0 else sys.argv[2]
keep_on_loopback(address)
init_ranks(rank=rank, world_size=2, init_method=address, backend="gloo", timeout_s=240)
torch.distributed.all_reduce(torch.ones(1))
held = psutil.Process().net_connections("inet")
print(json.dumps([each.laddr.ip for each in held if each.status == "LISTEN"]))
torch.distributed.barrier()
leave_ranks()
"""


def rank(*arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, "-c", RANK, *arguments], stdout=subprocess.PIPE, text=True)


def test_ranks_that_meet_on_loopback_listen_nowhere_else() -> None:
    leader = rank("0")
    assert leader.stdout is not None
    follower = rank("1", leader.stdout.readline().strip())
    said = [each.communicate(timeout=300)[0] for each in (leader, follower)]
    assert [leader.returncode, follower.returncode] == [0, 0]
    listening = [ip_address(ip.removeprefix("::ffff:")) for line in said for ip in json.loads(line)]
    assert len(listening) >= 3  # the store's, and one of each rank
    assert [address for address in listening if not address.is_loopback] == []
