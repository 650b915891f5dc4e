"""The chaos run: real processes under random faults, and a judge who trusts none of them.

    make chaos CHAOS_ARGS="--minutes 20 --faults 200 --seed 1 --out docs/chaos"

In: a seed. Out: a report (JSON, Markdown, PNG) and an exit code. Two books are compared that none
of the judged code keeps: each application writes down every `mark_end_of_trajectory` that returned
(`ledger`), and the broker's append-only file, which is never rewritten, tells every append and
every commit that survived (`blackbox`). A unique id in the observations links the two
(`identity`). `judge` compares; `control` is the usual "publish, then ack" design, which must fail
under the same faults. Linux only: worker processes are found in /proc.
"""
