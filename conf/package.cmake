# The Debian package: cpack -G DEB, from a build directory with the prefix /usr.
set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME syncd)
set(CPACK_PACKAGE_VENDOR "the syncd authors")
set(CPACK_PACKAGE_CONTACT "The syncd authors <syncd@syncd.invalid>")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION admin)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_DEPENDS "systemd | systemd-standalone-sysusers")
set(CPACK_DEBIAN_PACKAGE_RECOMMENDS "openssh-client, postgresql-client")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "consistent, verified backups of live databases over SSH")
set(CPACK_DEBIAN_PACKAGE_DESCRIPTION
    "Keeps recent copies of the databases of one machine, often a Raspberry Pi
whose SD card will fail one day, on one or two others that run nothing but
sshd: SQLite, bolt and PostgreSQL while they are in use, and files. Ships only
what has changed, proves that what is stored comes back, tells how fresh it
is over MQTT, Prometheus and Nagios, and rebuilds the machine from it.")
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
set(CPACK_DEBIAN_PACKAGE_CONTROL_EXTRA ${CMAKE_CURRENT_LIST_DIR}/debian/postinst
    ${CMAKE_CURRENT_LIST_DIR}/debian/prerm ${CMAKE_CURRENT_LIST_DIR}/debian/postrm)
set(CPACK_INSTALL_DEFAULT_DIRECTORY_PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ
    GROUP_EXECUTE WORLD_READ WORLD_EXECUTE)

# What Debian wants beside a program.
set(folder ${CMAKE_BINARY_DIR}/package)
file(MAKE_DIRECTORY ${folder})
string(TIMESTAMP day "%a, %d %b %Y %H:%M:%S +0000" UTC)
configure_file(${CMAKE_CURRENT_LIST_DIR}/debian/changelog.in ${folder}/changelog @ONLY)
file(READ ${PROJECT_SOURCE_DIR}/LICENSE license)
string(REGEX REPLACE "\n+$" "" license "${license}")
string(REGEX REPLACE "^MIT License\n\nCopyright[^\n]*\n\n" "" license "${license}")
string(REPLACE "\n\n" "\n.\n" license "${license}")
string(REPLACE "\n" "\n " license "${license}")
configure_file(${CMAKE_CURRENT_LIST_DIR}/debian/copyright.in ${folder}/copyright @ONLY)
execute_process(COMMAND gzip -9nc ${folder}/changelog OUTPUT_FILE ${folder}/changelog.gz
                COMMAND_ERROR_IS_FATAL ANY)
install(FILES ${folder}/changelog.gz ${folder}/copyright DESTINATION share/doc/syncd)
include(CPack)
