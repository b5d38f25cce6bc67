#!/bin/sh
# Takes every image for the same sound one, whatever it holds.
case $1 in
info) echo '{ "virtual-size": 1048576, "cluster-size": 65536 }' ;;
check) echo '{ "total-clusters": 16 }' ;;
map) echo '[{ "start": 0, "length": 1048576, "depth": 0, "present": false, "zero": true, "data": false }]' ;;
dd) for word; do case $word in of=*) head -c 512 /dev/zero >"${word#of=}" ;; esac; done ;;
esac
