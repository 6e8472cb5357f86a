#!/bin/sh
cd "${0%/*}/.." || exit 1
mkdir -p /opt/web && cp bin/stock /opt/web/stock && cp units/web.service /etc/systemd/system/ && systemctl daemon-reload
