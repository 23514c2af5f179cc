-- version --
SELECT current_setting('server_version');

-- settings --
-- What somebody chose for the server; not what differs from run to run.
SELECT name, setting
FROM pg_settings
WHERE source = 'configuration file' AND category NOT LIKE 'File Locations%' AND name NOT IN ('port', 'unix_socket_directories', 'log_timezone', 'TimeZone')
ORDER BY name;
