#!/bin/sh
exec systemctl stop web.service
