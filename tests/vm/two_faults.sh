# shellcheck shell=bash
# Faults between two guests; sourced by lab.sh two. The master is in a, the workers are in b. A try that is not answered
# is repeated after 67 ms (--ack-timeout 14), at most six times, so a peer counts as lost after half a second; with 16
# after two.
# A worker that has lost its master ends with 1, one that has looked for it in vain with 3.
# shellcheck source=two_task.sh
. "$1/tests/vm/two_task.sh"
quick="--insecure --ack-timeout 14 --retries 6"
patient="--insecure --ack-timeout 16 --retries 6"

say "a worker is killed"
# shellcheck disable=SC2086
killed_worker() {
    master m --epochs 8 --workers 2 --workers-wait 2 $quick && worker w1 $quick && worker w2 $quick || return 1
    sees b w1 20 joined && sees b w2 20 joined && sleep 1 && send b w1 KILL || return 1
    ends b w2 40 0 && ends a m 20 0 && says a m '1 workers? lost'
}
check "the other one finishes the run; the master counts one lost" killed_worker
clean m w1 w2

say "the master is killed"
# shellcheck disable=SC2086
killed_master() {
    master m --epochs 100 --workers 1 $quick && worker w1 $quick --reconnect 0 && sees b w1 20 joined && sleep 1 || return 1
    send a m KILL && ends b w1 20 1 && says b w1 'master'
}
check "its worker ends, and says so" killed_master
clean m w1
# shellcheck disable=SC2086
new_master() {
    master m --epochs 100 --workers 1 $quick && worker w1 $quick --reconnect 30 && sees b w1 20 joined && sleep 1 || return 1
    send a m KILL && sleep 1 && master n --epochs 2 --workers 1 $quick || return 1
    ends b w1 40 0 && ends a n 20 0
}
check "a worker that looks for it again finds a new one" new_master
clean m n w1

say "the cable is out"
# shellcheck disable=SC2086
out_for_a_second() {
    master m --epochs 3 --workers 1 $patient && worker w1 $patient && sees b w1 20 joined && sleep 1 || return 1
    link b off && sleep 1 && link b on || return 1
    ends b w1 40 0 && ends a m 20 0 && says a m '0 workers lost'
}
check "for a second: the run goes on" out_for_a_second
clean m w1
# shellcheck disable=SC2086
out_too_long() {
    master m --epochs 3 --workers 1 $quick && worker w1 $quick --reconnect 30 && sees b w1 20 joined && sleep 1 || return 1
    link b off && sleep 3 && link b on || return 1
    ends b w1 60 0 && ends a m 20 0 && says a m '1 workers? lost'
}
check "for longer than all tries take: the worker comes back" out_too_long
clean m w1
# shellcheck disable=SC2086
out_for_good() {
    master m --epochs 100 --workers 1 $quick && worker w1 $quick --reconnect 2 && sees b w1 20 joined && sleep 1 || return 1
    link b off || return 1
    ends b w1 30 3 && says b w1 'did not come back'
}
check "for good: the worker ends, and says so" out_for_good
link b on
clean m w1

say "a bad line"
netem a loss 1% delay 5ms
netem b loss 1% delay 5ms
# shellcheck disable=SC2086
bad_line() {
    master m --epochs 1 --workers 1 $patient && worker w1 $patient || return 1
    ends b w1 60 0 && ends a m 20 0 && says a m '0 workers lost'
}
check "1 % lost, 5 ms late: the run ends well" bad_line
netem a none
netem b none
clean m w1

say "a wrong token"
on a sh -c "echo a-token-that-both-of-them-know >$work/token; chmod 600 $work/token"
on b sh -c "echo a-token-that-both-of-them-know >$work/token; echo another-token-altogether >$work/wrong
    chmod 600 $work/token $work/wrong"
wrong_token() {
    master m --epochs 2 --workers 1 --token-file $work/token || return 1
    worker w1 --token-file $work/wrong --connect-timeout 5
    ends b w1 20 1 && says b w1 'token' || return 1
    worker w2 --connect-timeout 5
    ends b w2 20 1 && says b w2 'token' || return 1
    worker w3 --token-file $work/token
    ends b w3 30 0 && ends a m 20 0
}
check "is refused, and none, and the right one trains" wrong_token
clean m w1 w2 w3

say "a user who may lock 64 KiB"
# shellcheck disable=SC2086
locked_memory() {
    master m --epochs 2 --workers 1 $quick || return 1
    user=64 worker w1 $quick --connect-timeout 5
    ends b w1 20 1 && says b w1 'lock' && says b w1 '64 KiB|65536|65,536'
}
check "is told what there is and what is needed" locked_memory
clean m w1

say "the device goes away"
# shellcheck disable=SC2086
worker_device() {
    master m --epochs 100 --workers 1 $quick && worker w1 $quick --reconnect 0 && sees b w1 20 joined && sleep 1 || return 1
    on b rdma link delete rxe0
    ends b w1 20 1 && says b w1 'device.*(gone|removed|away)|(lost|failed).*device' && sees a m 10 'lost'
}
check "a worker's: it ends, and says so; the master sees it go" worker_device
on b rdma link add rxe0 type rxe netdev eth0
clean m w1
# shellcheck disable=SC2086
master_device() {
    master m --epochs 100 --workers 1 $quick && worker w1 $quick --reconnect 0 && sees b w1 20 joined && sleep 1 || return 1
    on a rdma link delete rxe0
    ends a m 20 1 && says a m 'device.*(gone|removed|away)|failed.*device' && ends b w1 20 1
}
check "the master's: both end" master_device
on a rdma link add rxe0 type rxe netdev eth0
clean m w1

say "the power of the workers' machine"
# shellcheck disable=SC2086
power() {
    master m --epochs 100 --workers 1 $quick && worker w1 $quick && sees b w1 20 joined && sleep 1 || return 1
    kill_guest b
    sees a m 20 'lost'
}
check "the master sees them go" power
