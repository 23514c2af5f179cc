-- version --
SELECT current_setting('server_version');

-- settings --
-- What somebody chose for the server; not what differs from run to run.
SELECT name, setting
FROM pg_settings
WHERE source = 'configuration file'
    AND category !~ '^(File Locations|Reporting and Logging|Client Connection Defaults / Locale|Connections and Authentication / Connection Settings)'
ORDER BY name;
