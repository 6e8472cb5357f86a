#!/bin/sh
exec systemctl start web.service
