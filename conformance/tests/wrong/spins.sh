#!/bin/sh
# Never answers, and keeps the processor busy.
[ "$1" = --version ] && exit
while :; do :; done
